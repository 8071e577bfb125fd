"""`berg/models` of somebody who followed the guide: imported as such (tests/test_tutorial.py), never collected."""

collect_ignore_glob = ["meg/*"]
