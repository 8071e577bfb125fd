"""``python -m berg`` is the command ``berg``."""

from berg.cli.app import main

if __name__ == "__main__":
    main()
