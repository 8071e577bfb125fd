import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from berg.core.exceptions import InvalidParameterError, StorageError
from berg.features import pretrained_network
from berg.features.pretrained_network import NetworkFeatures
from berg.fitting import feature_cache
from berg.fitting.feature_cache import (
    FeatureKey,
    cached_features,
    fingerprint_of_code,
    fingerprint_of_network,
    peak_bytes,
)

CPU = torch.device("cpu")
N = 70  # two whole batches and a part of one
KEY = FeatureKey(
    stimuli="pictures", extractor="tiny", network="weights", transform="preset", nodes=("0", "2"),
    precision="float32", code="1",
)  # fmt: skip


def transform(pictures):
    return pictures.float() / 255


def tiny_network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    return NetworkFeatures(network, ["0", "2"], transform, torch.float32).eval().requires_grad_(False)


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (N, 3, 8, 8), np.uint8)


def expected(network, pictures):
    with torch.no_grad():
        return torch.cat(network(torch.from_numpy(pictures)), dim=1).numpy()


def computed(network, pictures, folder, key=KEY, **options):
    """The features, and which stimuli were read for them."""
    places = []

    def read(wanted):
        places.extend(wanted.tolist())
        return pictures[wanted]

    return cached_features(network, key, read, N, folder, device=CPU, **options), places


def test_features_are_those_of_the_network(pictures, tmp_path):
    network = tiny_network()
    found, places = computed(network, pictures, tmp_path)
    np.testing.assert_allclose(found.array, expected(network, pictures), atol=1e-6)
    assert found.array.dtype == np.float32
    assert isinstance(found.array, np.memmap)
    assert found.columns == {"0": slice(0, 144), "2": slice(144, 176)}
    assert places == list(range(N))


def test_the_second_time_nothing_is_read(pictures, tmp_path):
    first, _ = computed(tiny_network(), pictures, tmp_path)
    second, places = computed(tiny_network(), pictures, tmp_path)
    assert places == []
    assert second.columns == first.columns
    np.testing.assert_array_equal(second.array, first.array)


CHANGES = {
    "stimuli": "others", "extractor": "other", "network": "fitted anew", "transform": "as_trained", "nodes": ("2", "0"),
    "precision": "bfloat16", "code": "2",
}  # fmt: skip


def test_every_part_of_the_key_is_changed_here():
    assert set(CHANGES) == set(KEY.__dataclass_fields__)


@pytest.mark.parametrize("part", CHANGES)
def test_whatever_changes_misses(part, pictures, tmp_path):
    computed(tiny_network(), pictures, tmp_path)
    _, places = computed(tiny_network(), pictures, tmp_path, replace(KEY, **{part: CHANGES[part]}))
    assert places == list(range(N))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_shorter_numbers_are_kept_without_loss(precision, pictures, tmp_path):
    network = tiny_network()
    short = NetworkFeatures(network.network, ["0", "2"], transform, getattr(torch, precision)).eval()
    found, _ = computed(short, pictures, tmp_path)
    with torch.no_grad():
        batch = torch.cat(short(torch.from_numpy(pictures[:32])), dim=1)
    np.testing.assert_array_equal(found.array[:32], batch.float().numpy())


# What the fingerprints tell apart


def test_one_weight_that_differs_in_its_last_bit_changes_the_fingerprint():
    network = tiny_network()
    before = fingerprint_of_network(network)
    assert before == fingerprint_of_network(tiny_network()) != fingerprint_of_network(tiny_network(1))
    weight = network.network[0].weight.data
    weight.view(-1)[5] = torch.nextafter(weight.view(-1)[5], torch.tensor(10.0))
    assert fingerprint_of_network(network) != before


def test_a_buffer_counts_as_a_weight():
    networks = [nn.BatchNorm2d(3), nn.BatchNorm2d(3)]
    networks[1].running_mean += 1
    assert fingerprint_of_network(networks[0]) != fingerprint_of_network(networks[1])


def test_weights_of_another_precision_are_others():
    network = nn.Linear(2, 2).bfloat16()
    before = fingerprint_of_network(network)
    assert fingerprint_of_network(network.float()) != before


def test_another_version_of_a_library_changes_the_code(monkeypatch):
    network = tiny_network()
    before = fingerprint_of_code(network)
    assert fingerprint_of_code(network) == before
    for library in (torch, feature_cache.torchvision, feature_cache.PIL, np):
        with monkeypatch.context() as patch:
            patch.setattr(library, "__version__", "0")
            assert fingerprint_of_code(network) != before


OF_THE_CODE = ["berg.stimuli.images", "berg.features.linear", pretrained_network.__name__, __name__]


@pytest.mark.parametrize("module", OF_THE_CODE)
def test_another_line_in_a_module_changes_the_code(module, monkeypatch, tmp_path):
    network = tiny_network()
    before = fingerprint_of_code(network)
    file = tmp_path / "edited.py"
    file.write_bytes(Path(sys.modules[module].__file__).read_bytes() + b"\n")
    monkeypatch.setattr(sys.modules[module], "__file__", str(file))
    assert fingerprint_of_code(network) != before


def test_the_modules_that_a_network_is_made_of_count(monkeypatch, tmp_path):
    from torchvision.models import resnet

    network = NetworkFeatures(resnet.resnet18(), ["layer1"], transform, torch.float32)
    before = fingerprint_of_code(network)
    file = tmp_path / "edited.py"
    file.write_text("")
    monkeypatch.setattr(resnet, "__file__", str(file))
    assert fingerprint_of_code(network) != before


# Interruptions


class Broken(Exception):
    pass


def breaking_at(pictures, place):
    def read(wanted):
        if place in wanted:
            raise Broken
        return pictures[wanted]

    return read


def test_an_interrupted_call_goes_on_where_it_was(pictures, tmp_path):
    network = tiny_network()
    whole, _ = computed(network, pictures, tmp_path / "whole")
    with pytest.raises(Broken):
        cached_features(network, KEY, breaking_at(pictures, 64), N, tmp_path / "again", device=CPU)
    folder = tmp_path / "again" / KEY.digest
    assert not (folder / "features.npy").exists()
    found, places = computed(network, pictures, tmp_path / "again")
    assert places[0] in (32, 64)
    assert places == list(range(places[0], N))
    assert (folder / "features.npy").read_bytes() == (tmp_path / "whole" / KEY.digest / "features.npy").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["features.json", "features.npy"]
    np.testing.assert_array_equal(found.array, whole.array)


def test_what_was_written_after_the_last_entry_of_the_ledger_is_written_again(pictures, tmp_path):
    network = tiny_network()
    whole, _ = computed(network, pictures, tmp_path / "whole")
    with pytest.raises(Broken):
        cached_features(network, KEY, breaking_at(pictures, 64), N, tmp_path / "again", device=CPU)
    with (tmp_path / "again" / KEY.digest / "features.part").open("ab") as part:
        part.write(b"half of a batch that the ledger does not know of")
    found, _ = computed(network, pictures, tmp_path / "again")
    np.testing.assert_array_equal(found.array, whole.array)


CHILD = """
import os, sys
from pathlib import Path
import numpy as np, torch
sys.path[:0] = sys.argv[2:]
from test_feature_cache import KEY, N, tiny_network
from berg.fitting.feature_cache import cached_features

def read(wanted):
    if 64 in wanted:
        while not (Path(sys.argv[1]) / KEY.digest / "ledger.json").exists():
            pass
        os._exit(9)
    return np.random.default_rng(0).integers(0, 256, (N, 3, 8, 8), np.uint8)[wanted]

cached_features(tiny_network(), KEY, read, N, Path(sys.argv[1]), device=torch.device("cpu"))
"""


@pytest.mark.slow
def test_a_killed_process_leaves_what_the_next_goes_on_with(pictures, tmp_path):
    command = [sys.executable, "-c", CHILD, str(tmp_path), str(Path(__file__).parent)]
    assert subprocess.run(command, check=False, env=os.environ).returncode == 9
    found, places = computed(tiny_network(), pictures, tmp_path)
    assert places[0] > 0
    whole, _ = computed(tiny_network(), pictures, tmp_path / "whole")
    np.testing.assert_array_equal(found.array, whole.array)


def test_a_file_that_was_cut_is_computed_anew(pictures, tmp_path):
    whole, _ = computed(tiny_network(), pictures, tmp_path)
    values = np.array(whole.array)
    path = tmp_path / KEY.digest / "features.npy"
    path.write_bytes(path.read_bytes()[:-1])
    found, places = computed(tiny_network(), pictures, tmp_path)
    assert places == list(range(N))
    np.testing.assert_array_equal(found.array, values)


# Damage


def entry(folder):
    return folder / KEY.digest


def flip(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def of_another_key(folder, pictures, *names):
    """Put the files of other features, computed from other pictures, in the place of these."""
    other = replace(KEY, stimuli="others")
    computed(tiny_network(), pictures[::-1].copy(), folder, other)
    for name in names:
        (entry(folder) / name).write_bytes((folder / other.digest / name).read_bytes())


DAMAGE = {
    "the first value": lambda folder, _: flip(entry(folder) / "features.npy", 128),
    "a value in the middle": lambda folder, _: flip(entry(folder) / "features.npy", 128 + 40 * 4 * 176 + 2),
    "the last value": lambda folder, _: flip(entry(folder) / "features.npy", -1),
    "the shape": lambda folder, _: flip(entry(folder) / "features.npy", 61),
    "another's array": lambda folder, pictures: of_another_key(folder, pictures, "features.npy"),
    "another's words": lambda folder, pictures: of_another_key(folder, pictures, "features.json"),
    "another's files": lambda folder, pictures: of_another_key(folder, pictures, "features.json", "features.npy"),
    "no words": lambda folder, _: (entry(folder) / "features.json").unlink(),
    "no array": lambda folder, _: (entry(folder) / "features.npy").unlink(),
    "an empty array": lambda folder, _: (entry(folder) / "features.npy").write_bytes(b""),
    "zeros": lambda folder, _: (entry(folder) / "features.npy").write_bytes(bytes(1000)),
}
WORDS = [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"sizes": [], "nodes": []}']


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_computed_anew(damage, pictures, tmp_path):
    computed(tiny_network(), pictures, tmp_path)
    DAMAGE[damage](tmp_path, pictures)
    found, places = computed(tiny_network(), pictures, tmp_path)
    assert places == list(range(N))
    np.testing.assert_allclose(found.array, expected(tiny_network(), pictures), atol=1e-6)
    assert computed(tiny_network(), pictures, tmp_path)[1] == []


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("name", ["features.json", "ledger.json"])
def test_words_that_are_none_are_no_entry(name, words, pictures, tmp_path):
    if name == "ledger.json":
        with pytest.raises(Broken):
            cached_features(tiny_network(), KEY, breaking_at(pictures, 64), N, tmp_path, device=CPU)
    else:
        computed(tiny_network(), pictures, tmp_path)
    (entry(tmp_path) / name).write_bytes(words)
    found, places = computed(tiny_network(), pictures, tmp_path)
    assert places == list(range(N))
    np.testing.assert_allclose(found.array, expected(tiny_network(), pictures), atol=1e-6)


@pytest.mark.parametrize("change", ["a flipped bit", "a cut", "more said than there is", "another number of stimuli"])
def test_a_part_that_is_not_what_the_ledger_says_is_computed_anew(change, pictures, tmp_path):
    with pytest.raises(Broken):
        cached_features(tiny_network(), KEY, breaking_at(pictures, 64), N, tmp_path, device=CPU)
    part, ledger = entry(tmp_path) / "features.part", entry(tmp_path) / "ledger.json"
    if change == "a flipped bit":
        flip(part, 500)
    elif change == "a cut":
        part.write_bytes(part.read_bytes()[:1000])
    else:
        said = json.loads(ledger.read_text())
        said["n_done"] = 64 if change == "more said than there is" and said["n_done"] == 32 else N
        ledger.write_text(json.dumps(said))
    found, places = computed(tiny_network(), pictures, tmp_path)
    assert places == list(range(N))
    np.testing.assert_allclose(found.array, expected(tiny_network(), pictures), atol=1e-6)


def test_an_entry_without_checksums_is_computed_anew(pictures, tmp_path):
    computed(tiny_network(), pictures, tmp_path)
    said = json.loads((entry(tmp_path) / "features.json").read_text())
    del said["checksums"]
    (entry(tmp_path) / "features.json").write_text(json.dumps(said))
    assert computed(tiny_network(), pictures, tmp_path)[1] == list(range(N))


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="becomes another user")
def test_a_folder_that_can_only_be_read_will_do_for_features_that_are_whole(pictures):
    place = Path(tempfile.mkdtemp())  # others may not look into pytest's own
    try:
        whole, _ = computed(tiny_network(), pictures, place)
        for path in (place, *place.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        (place / f"{KEY.digest}.lock").unlink(missing_ok=True)
        os.seteuid(54321)
        try:
            found, places = computed(tiny_network(), pictures, place)
            assert places == []
            with pytest.raises(StorageError, match=r"cannot be written: Permission denied.*ls -ld"):
                computed(tiny_network(), pictures, place, replace(KEY, stimuli="others"))
        finally:
            os.seteuid(0)
        np.testing.assert_array_equal(found.array, whole.array)
    finally:
        shutil.rmtree(place)


# Errors


def test_a_full_disk_is_said_before_anything_is_written(pictures, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda path: usage(1000, 999, 1))
    with pytest.raises(StorageError, match=r"70 stimuli need [0-9.]+ kB on disk, and .* has 1 B free.*--cache"):
        computed(tiny_network(), pictures, tmp_path)


def test_numbers_that_are_not_finite_are_refused_and_the_stimuli_named(pictures, tmp_path):
    network = tiny_network()
    network.network[2].bias.data[0] = torch.inf
    with pytest.raises(InvalidParameterError, match=r"not finite for the training stimuli 0 to 31.*: float32"):
        computed(network, pictures, tmp_path)


def test_the_folder_says_in_words_what_it_is_of(pictures, tmp_path):
    computed(tiny_network(), pictures, tmp_path)
    said = json.loads((tmp_path / KEY.digest / "features.json").read_text())
    assert said["extractor"] == "tiny"
    assert said["sizes"] == [144, 32]


def test_memory_is_counted_from_weights_batches_and_the_largest_layer(pictures):
    network = tiny_network()
    n_features, largest = 176, 4 * (4 * 6 * 6 + 4 * 6 * 6)  # bytes into and out of the ReLU
    weights = 4 * (4 * 27 + 4 + 2 * 36 + 2)
    batch = 3 * largest + 12 * n_features + 6 * 3 * 64
    largest_input = 4 * (3 * 64 + 4 * 36)  # into and out of the first convolution: larger
    batch += 3 * (max(largest, largest_input) - largest)
    found = peak_bytes(network, pictures[:1], n_features, CPU)
    assert found == weights + 32 * batch
