"""berg download, status, verify, where and remove, on a mirror on disk."""

import pytest

from berg.cli.app import main
from berg.core.layout import ModelId

pytestmark = pytest.mark.xdist_group("published")
FWRF = "fmri-nsd-fwrf"
FOLDER = ModelId.parse(FWRF).folder("").as_posix()
V2 = ["--subject", "1", "--selection", "roi=V2"]


@pytest.fixture(autouse=True)
def place(monkeypatch, berg_dir, tmp_path):
    monkeypatch.setenv("BERG_DIR", str(tmp_path / "here"))
    monkeypatch.setenv("BERG_SOURCE", berg_dir.as_uri())
    return tmp_path / "here"


def refused(capsys, *tokens):
    with pytest.raises(SystemExit) as stopped:
        main(tokens)
    assert stopped.value.code == 1
    return capsys.readouterr().err


def said(capsys, *tokens):
    main(tokens)
    return capsys.readouterr().out


def test_a_dry_run_lists_files_with_their_sizes_and_fetches_nothing(capsys, place):
    out = said(capsys, "download", FWRF, *V2, "--dry-run")
    assert "weights_sub-01_roi-V2.pt" in out
    assert "MB" in out
    assert "2 of 2 files to fetch" in out
    assert not place.exists()


def test_a_life_of_files(capsys, place):
    assert "Get some with:  berg download MODEL_ID" in said(capsys, "status")
    out = said(capsys, "download", FWRF, *V2)
    assert "2 files fetched" in out
    assert "publishes no hashes of 2 of them" in out
    out = said(capsys, "download", FWRF, *V2)
    assert "0 of 2 files to fetch" in out
    assert "publishes no hashes" not in out
    assert "2 whole" in said(capsys, "status")
    assert "metadata/metadata_sub-01_roi-V2.npy  whole" in said(capsys, "status", FWRF)
    assert said(capsys, "verify").strip() == "2 whole"
    (place / FOLDER / "metadata" / "metadata_sub-01_roi-V2.npy").write_bytes(b"x")
    assert "wrong size" in said(capsys, "status")
    error = refused(capsys, "verify")
    assert "1 files are damaged or missing, the first: metadata/metadata_sub-01_roi-V2.npy" in error
    assert "berg download fmri-nsd-fwrf" in error
    assert "Deleted 2 files" in said(capsys, "remove", FWRF, *V2, "--yes")
    assert "No files of any model" in said(capsys, "status")


def test_all_regions_of_a_subject_are_listed(capsys, monkeypatch, berg_dir):
    error = refused(capsys, "download", FWRF, "--subject", "1", "--all", "--dry-run")
    assert "cannot be read: No such file" in error  # the mirror has four of them
    assert "roi-" in error


def test_without_a_region_the_command_says_what_is_missing(capsys):
    assert "say which (roi='V1' for example), or ask for all of them (--all" in refused(
        capsys, "download", FWRF, "--subject", "1"
    )


def test_nothing_is_deleted_without_a_yes(capsys, monkeypatch, place):
    main(["download", FWRF, *V2])
    monkeypatch.setattr("builtins.input", lambda _: "")
    assert "Nothing was deleted" in said(capsys, "remove", FWRF)
    assert "2 whole" in said(capsys, "status")
    assert "No such files" in refused(capsys, "remove", FWRF, "--subject", "2", "--selection", "roi=V2", "--yes")


def test_files_that_came_by_other_ways_can_be_recorded(capsys, place, berg_dir):
    name = "metadata/metadata_sub-01_roi-V2.npy"
    (place / FOLDER / name).parent.mkdir(parents=True)
    (place / FOLDER / name).write_bytes((berg_dir / FOLDER / name).read_bytes())
    assert "berg verify --record" in said(capsys, "verify")
    assert "1 recorded" in said(capsys, "verify", "--record")
    assert said(capsys, "verify").strip() == "1 whole"


def test_where_tells_what_set_each_place(capsys, place, berg_dir, monkeypatch):
    monkeypatch.setenv("BERG_OFFLINE", "1")
    out = said(capsys, "where")
    assert f"{place}  (the environment variable BERG_DIR, not there yet)" in out
    assert f"{berg_dir.as_uri()}  (the environment variable BERG_SOURCE)" in out
    assert "yes  (the environment variable BERG_OFFLINE)" in out
    assert "config.toml" in out
