"""Mutated files of every kind that is read; see `fuzz_files`, which makes as many as one likes."""

import pytest
from fuzz_files import FAILED, SEEDS, Corpus, file_name, fuzz, outcome

# Their readers are in rooms of their own, with tests of their own; all are in the slow test.
ELSEWHERE = {"png", "jpg", "tif", "gif", "bmp", "webp", "wav", "yaml", "tsv", "tsv.gz", "csv", "txt", "json"}


@pytest.mark.parametrize("kind", [kind for kind in SEEDS if kind not in ELSEWHERE])
def test_some_mutations_are_read_or_refused_by_our_errors(kind, tmp_path):
    corpus = Corpus.written(kind)
    for number in range(24):
        path = tmp_path / str(number) / file_name(kind)
        corpus.write_mutation(path, number)
        found = outcome(path, kind)
        assert found["verdict"] in ("read", "refused"), (number, found)
        assert "unnamed" not in found, (number, found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEEDS)
def test_two_thousand_mutations_are_read_or_refused_by_our_errors(kind):
    failures = [(number, found) for _, number, found in fuzz([kind], 2000) if found["verdict"] in FAILED]
    assert failures == []
