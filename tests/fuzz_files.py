"""Mutated files of every kind that is read: each is read, or refused by an error of ours, quickly and in little memory.

    python tests/fuzz_files.py                     # 2,000 mutations of every kind
    python tests/fuzz_files.py --kind h5 --count 100 --seed 3 --keep failures

Seeds are written by this file. A mutation cuts a file off, flips bits, sets bytes, inserts, leaves out, doubles or
swaps a stretch, or splices two seeds of a kind. Work is done in processes whose memory is limited; one that hangs or
dies is replaced, and its file counts as a failure.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 20  # for one file
ENOUGH_BYTES = 3 * 2**30  # of addresses beyond those of a process that has read a good file
N_ROWS = 6
VALUES = np.random.default_rng(0).normal(size=(N_ROWS, 24)).astype(np.float32)
TEXTS = ["a.png", "b.png", "c.png", "V1", "n/a", "007"]


# Seeds


def _npy(path: Path) -> None:
    np.save(path, VALUES)


def _npy_texts(path: Path) -> None:
    np.save(path, TEXTS)


def _npz(path: Path) -> None:
    np.savez(path, betas=VALUES)


def _npz_small(path: Path) -> None:
    np.savez_compressed(path, betas=VALUES)


def _h5(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("a/betas", data=VALUES, chunks=(2, 8), compression="gzip", shuffle=True, fletcher32=True)
        file["link"] = h5py.SoftLink("/a/betas")


def _h5_plain(path: Path) -> None:
    import h5py

    with h5py.File(path, "w", libver="latest") as file:
        file["betas"] = VALUES


def _matlab(path: Path) -> None:
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        letters = file.create_group("#refs#")
        for name in TEXTS:
            own = letters.create_dataset(name, data=np.array([[ord(letter)] for letter in name], np.uint16))
            own.attrs["MATLAB_class"] = np.bytes_("char")
        cells = file.create_dataset("names", (1, len(TEXTS)), h5py.ref_dtype)
        cells[0] = [letters[name].ref for name in TEXTS]
        cells.attrs["MATLAB_class"] = np.bytes_("cell")


def _matlab_numbers(path: Path) -> None:
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("betas", data=VALUES.T.astype(float), compression="gzip")
        file["betas"].attrs["MATLAB_class"] = np.bytes_("double")


def _nifti(path: Path) -> None:
    import nibabel

    image = nibabel.Nifti1Image((1000 * VALUES.T).reshape(2, 3, 4, N_ROWS).astype(np.int16), np.diag([2.0, 2, 2, 1]))
    image.header.set_slope_inter(0.001, 0)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"a comment"))
    image.to_filename(path)


def _nifti2(path: Path) -> None:
    import nibabel

    nibabel.Nifti2Image(VALUES.T.reshape(2, 3, 4, N_ROWS), np.eye(4)).to_filename(path)


def _mgh(path: Path) -> None:
    import nibabel

    nibabel.MGHImage(VALUES.T.reshape(24, 1, 1, N_ROWS).copy(), np.eye(4)).to_filename(path)


def _gifti(path: Path) -> None:
    from nibabel import gifti

    rows = [gifti.GiftiDataArray(row, "NIFTI_INTENT_NONE", "NIFTI_TYPE_FLOAT32") for row in VALUES]
    gifti.GiftiImage(darrays=rows, meta=gifti.GiftiMetaData({"AnatomicalStructurePrimary": "CortexLeft"})).to_filename(
        path
    )


def _gifti_labels(path: Path) -> None:
    from nibabel import gifti

    table = gifti.GiftiLabelTable()
    for key, name in ((0, "none"), (3, "V1")):
        label = gifti.GiftiLabel(key)
        label.label = name
        table.labels.append(label)
    array = gifti.GiftiDataArray(
        np.array([3, 0, 3], np.int32), "NIFTI_INTENT_LABEL", "NIFTI_TYPE_INT32", encoding="ASCII"
    )
    gifti.GiftiImage(labeltable=table, darrays=[array]).to_filename(path)


def _brain() -> Any:
    """Twenty vertices and four voxels."""
    from nibabel import cifti2

    voxels = cifti2.BrainModelAxis.from_mask(np.ones((1, 2, 2)), "thalamus_left", np.diag([2.0, 2, 2, 1]))
    return cifti2.BrainModelAxis.from_surface(np.arange(20), 30, "CortexLeft") + voxels


def _cifti(path: Path) -> None:
    from nibabel import cifti2

    names = cifti2.ScalarAxis([f"map {row}" for row in range(N_ROWS)])
    cifti2.Cifti2Image(VALUES, (names, _brain())).to_filename(path)


def _cifti_series(path: Path) -> None:
    from nibabel import cifti2

    cifti2.Cifti2Image(VALUES, (cifti2.SeriesAxis(0, 2, N_ROWS), _brain())).to_filename(path)


def _cifti_labels(path: Path) -> None:
    from nibabel import cifti2

    table = {0: ("???", (0.0, 0.0, 0.0, 0.0)), 3: ("V1", (1.0, 0.0, 0.0, 1.0))}
    numbers = np.array([[0, 3] * 12], np.float32)
    cifti2.Cifti2Image(numbers, (cifti2.LabelAxis(["areas"], [table]), _brain())).to_filename(path)


def _fif(path: Path) -> None:
    import mne

    info = mne.create_info(["Oz", "O1", "EOG"], 100.0, ["eeg", "eeg", "eog"])
    events = np.column_stack([np.arange(N_ROWS) * 10, np.zeros(N_ROWS, int), np.arange(N_ROWS) % 2 + 1])
    values = 1e-6 * VALUES.reshape(N_ROWS, 3, 8)
    names = {"a.png": 1, "b.png": 2}
    mne.EpochsArray(values, info, events, 0.0, names, baseline=None, verbose="error").save(path, verbose="error")


def _zarr(path: Path) -> None:
    import zarr

    zarr.open_group(path, mode="w").create_array("betas", data=VALUES, chunks=(3, 12))


def _zarr2(path: Path) -> None:
    import zarr

    zarr.create_array(path, data=VALUES, chunks=(3, 12), zarr_format=2)


def _annot(path: Path) -> None:
    from nibabel import freesurfer

    colours = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 0, 0]])
    freesurfer.write_annot(path, np.array([0, 1, -1, 1]), colours, ["V1", "V2"], fill_ctab=True)


def _table(path: Path) -> None:
    path.write_text("picture\tonset\n" + "".join(f"{name}\t{row}.5\n" for row, name in enumerate(TEXTS)))


def _table_gz(path: Path) -> None:
    import gzip

    path.write_bytes(gzip.compress(("x\n" + "\n".join(map(str, range(50)))).encode(), mtime=0))


def _csv(path: Path) -> None:
    path.write_text('picture,note\n"a.png","a, ""b"""\nb.png,"two\nlines"\n')


def _lines(path: Path) -> None:
    path.write_text("\n".join([*TEXTS, "größe.png", "猫.png"]) + "\n", "utf-8")


def _json(path: Path) -> None:
    path.write_text(json.dumps({"V1": [0, 5, 7], "early": [1, 2], "é": []}, ensure_ascii=False, indent=1), "utf-8")


def _json_list(path: Path) -> None:
    path.write_text(json.dumps(TEXTS))


def _yaml(path: Path) -> None:
    path.write_text(
        "name: fuzzed\nsubjects: [1, 2]\nstimuli: {path: p.npy}\npresentations: order.npy\nresponses:\n  lh:\n"
        "    path: betas.npy\n    axes: [presentation, vertex]\n    unit: z-score\n    coordinates: {roi: [a, b]}\n"
        "splits: {test_fraction: 0.5, seed: 3}\n"
    )


def _wav(path: Path) -> None:
    from scipy.io import wavfile

    wavfile.write(path, 8000, (1000 * VALUES.ravel()).astype(np.int16))


def _picture(form: str, mode: str = "RGB", **options: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        from PIL import Image

        pixels = np.random.default_rng(1).integers(0, 256, (12, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(path, form, **options)

    return write


SEEDS: dict[str, list[Callable[[Path], None]]] = {
    "npy": [_npy, _npy_texts],
    "npz": [_npz, _npz_small],
    "h5": [_h5, _h5_plain],
    "mat": [_matlab, _matlab_numbers],
    "nii": [_nifti, _nifti2],
    "nii.gz": [_nifti, _nifti2],
    "mgh": [_mgh],
    "mgz": [_mgh],
    "func.gii": [_gifti],
    "label.gii": [_gifti_labels],
    "dscalar.nii": [_cifti],
    "dtseries.nii": [_cifti_series],
    "dlabel.nii": [_cifti_labels],
    "annot": [_annot],
    "zarr": [_zarr, _zarr2],
    "-epo.fif": [_fif],
    "tsv": [_table],
    "tsv.gz": [_table_gz],
    "csv": [_csv],
    "txt": [_lines],
    "json": [_json, _json_list],
    "yaml": [_yaml],
    "wav": [_wav],
    "png": [_picture("PNG"), _picture("PNG", "P"), _picture("PNG", "LA")],
    "jpg": [_picture("JPEG"), _picture("JPEG", "L", progressive=True)],
    "tif": [_picture("TIFF"), _picture("TIFF", compression="tiff_lzw")],
    "gif": [_picture("GIF")],
    "bmp": [_picture("BMP")],
    "webp": [_picture("WEBP")],
}
PICTURES = {"png", "jpg", "tif", "gif", "bmp", "webp"}
RECORDINGS = [
    "npy", "npz", "h5", "mat", "nii", "nii.gz", "mgh", "mgz", "func.gii", "label.gii", "dscalar.nii", "dtseries.nii",
    "dlabel.nii", "zarr", "-epo.fif",
]  # fmt: skip


def file_name(kind: str) -> str:
    """A file's name of this kind."""
    return f"x{kind}" if kind.startswith("-") else f"x.{kind}"


# Mutations


def mutated(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """A file's bytes, changed in one to three ways."""
    for _ in range(int(rng.integers(1, 4))):
        data = _MUTATIONS[int(rng.integers(len(_MUTATIONS)))](data, others, rng)
    return data


def _place(data: bytes, rng: np.random.Generator) -> int:
    """Half of the places lie among the first bytes, where most readers look."""
    most = len(data) if rng.random() < 0.5 else min(len(data), 600)
    return int(rng.integers(most + 1))


def _cut(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    return data[: _place(data, rng)]


def _flip(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 9))) if changed else ():
        changed[min(_place(data, rng), len(changed) - 1)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _set(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    at, n = _place(data, rng), int(rng.choice([1, 2, 4, 8]))
    value = bytes([int(rng.choice([0, 255, 127, 128]))]) * n if rng.random() < 0.7 else rng.bytes(n)
    return data[:at] + value + data[at + n :]


def _insert(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.bytes(int(rng.integers(1, 40))) + data[at:]


def _leave_out(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + int(rng.integers(1, 40)) :]


def _double(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    first, last = sorted((_place(data, rng), _place(data, rng)))
    return data[:last] + data[first:]


def _splice(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    other = others[int(rng.integers(len(others)))]
    return data[: _place(data, rng)] + other[_place(other, rng) :]


_MUTATIONS = (_cut, _flip, _flip, _set, _set, _insert, _leave_out, _double, _splice)


@dataclass
class Corpus:
    """The seeds of a kind, each a map of the paths of its files to their bytes; one file has the path ''."""

    kind: str
    seeds: list[dict[str, bytes]]

    @classmethod
    def written(cls, kind: str) -> Corpus:
        """Seeds, written and read back."""
        seeds = []
        for write in SEEDS[kind]:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / file_name(kind)
                write(path)
                seeds.append({"": path.read_bytes()} if path.is_file() else _files_below(path))
        return cls(kind, seeds)

    def write_mutation(self, path: Path, seed: int) -> None:
        """The mutation of this number, where nothing is yet."""
        rng = np.random.default_rng([seed, *self.kind.encode()])
        files = dict(self.seeds[int(rng.integers(len(self.seeds)))])
        name = sorted(files)[int(rng.integers(len(files)))]
        files[name] = mutated(files[name], [own for seed_files in self.seeds for own in seed_files.values()], rng)
        for below, data in files.items():
            target = path / below if below else path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def _files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


# Readers


def readers(kind: str) -> list[Callable[[Path], object]]:
    """What a user does with a file of this kind."""
    if kind in PICTURES:
        return [_read_picture]
    if kind == "wav":
        return [_read_sound]
    if kind == "yaml":
        return [_open_dataset]
    own = [_read_labels]
    if kind in RECORDINGS:
        own.append(_read_responses)
    if kind in ("npy", "h5", "mat", "zarr"):
        own.append(_read_stimuli)
    return own


def _read_picture(path: Path) -> object:
    from berg.stimuli.images import load_images

    return load_images(path)


def _read_sound(path: Path) -> object:
    from berg.stimuli.sounds import read_sound

    return read_sound(path)


def _open_dataset(path: Path) -> object:
    from berg.datasets.dataset import EncodingDataset

    folder = path.parent
    np.save(folder / "p.npy", np.zeros((4, 3, 8, 8), np.uint8))
    np.save(folder / "order.npy", np.arange(4))
    np.save(folder / "betas.npy", VALUES[:4, :2])
    return EncodingDataset.open(path, 1).outputs["lh"].mean(np.arange(4))


def _read_labels(path: Path) -> object:
    from berg.datasets.label_files import per_unit, read_labels

    key = "picture" if path.suffix in (".tsv", ".csv") else None
    return per_unit(read_labels(path, key), 24)


def _read_responses(path: Path) -> object:
    from berg.datasets.matching_files import space_of
    from berg.datasets.response_files import open_responses

    space_of(path)
    found = open_responses(path)
    return found.rows.read(np.arange(min(found.rows.n_rows, 10)), slice(0, 50))


def _read_stimuli(path: Path) -> object:
    from berg.stimuli.arrays import open_array

    return open_array(path)[0:10]


# Work


def outcome(path: Path, kind: str) -> dict[str, str]:
    """What came of reading a file: ``read``, ``refused`` or ``foreign``, with the last lines of a foreign traceback."""
    from berg.core.exceptions import BERGError

    worst = {"verdict": "refused"}
    for read in readers(kind):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(path)
            worst = worst if worst["verdict"] == "foreign" else {"verdict": "read"}
        except BERGError as error:
            if path.name not in str(error) and path.parent.name not in str(error):
                worst = worst | {"unnamed": f"{read.__name__}: {error}"[:200]}
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)
            own = [f"{Path(step.filename).name}:{step.lineno}" for step in where if "/berg/" in step.filename]
            worst = {
                "verdict": "foreign",
                "error": f"{read.__name__}: {type(error).__name__}: {str(error)[:150]} ({' '.join(own[-3:])})",
            }
    return worst


def work() -> None:
    """Read the files that are named on the standard input, one a line, after the kind; answer with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints
    warm_up(sys.argv[2].split(","))
    limit = _addresses() + ENOUGH_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print("ready", file=answers)
    for line in sys.stdin:
        kind, _, path = line.rstrip("\n").partition(" ")
        signal.alarm(SECONDS)
        found = outcome(Path(path), kind)
        signal.alarm(0)
        print(json.dumps(found), file=answers)


def warm_up(kinds: list[str]) -> None:
    """Import what reads files of these kinds, and see that good files are taken."""
    for kind in kinds:
        for write in SEEDS[kind]:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / file_name(kind)
                write(path)
                found = outcome(path, kind)
                assert found["verdict"] == "read", (kind, write.__name__, found)


def _addresses() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class Worker:
    """A process that reads files, and is replaced when it hangs or dies."""

    def __init__(self, kinds: list[str]) -> None:
        self._kinds, self._process = kinds, None

    def read(self, kind: str, path: Path) -> dict[str, str]:
        """What came of reading a file; ``died`` if the process did not survive it."""
        process = self._process or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{kind} {path}\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if answer:
            return json.loads(answer)
        code = process.wait()
        self.close()
        return {"verdict": "hung" if code == -signal.SIGALRM else "died", "error": f"exit status {code}"}

    def _started(self) -> subprocess.Popen[str]:
        command = [sys.executable, __file__, "--work", ",".join(self._kinds)]
        log = subprocess.DEVNULL if not os.environ.get("FUZZ_LOG") else None
        self._process = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=log, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError(f"Seeds are not read. Look at:  FUZZ_LOG=1 {' '.join(command)}")
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def fuzz(kinds: list[str], count: int, seed: int = 0, keep: Path | None = None) -> Iterator[tuple[str, int, dict]]:
    """Mutate and read: kind, number of the mutation, and what came of it."""
    worker = Worker(kinds)
    try:
        for kind in kinds:
            corpus = Corpus.written(kind)
            for number in range(seed, seed + count):
                with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
                    path = Path(folder) / file_name(kind)
                    corpus.write_mutation(path, number)
                    found = worker.read(kind, path)
                    if keep and found["verdict"] in FAILED:
                        keep.mkdir(parents=True, exist_ok=True)
                        kept = keep / f"{number}{path.name[1:]}"
                        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, kept)
                yield kind, number, found
    finally:
        worker.close()


FAILED = ("foreign", "hung", "died")


def main() -> int:
    """Counts per kind, and each failure once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", action="append", choices=SEEDS, help="again for several; all if none is given")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the files that fail")
    given = parser.parse_args()
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    failures: collections.Counter[str] = collections.Counter()
    for kind in given.kind or SEEDS:
        for _, number, found in fuzz([kind], given.count, given.seed, given.keep):
            counts[kind][found["verdict"]] += 1
            counts[kind]["unnamed"] += "unnamed" in found
            if found["verdict"] in FAILED:
                failures[f"{kind}: {found['error']}"] += 1
                if failures[f"{kind}: {found['error']}"] == 1:
                    print(f"{kind} {number}: {found['verdict']}: {found['error']}", flush=True)
            elif "unnamed" in found:
                failures[f"{kind}: unnamed"] += 1
                if failures[f"{kind}: unnamed"] == 1:
                    print(f"{kind} {number}: no file named: {found['unnamed']}", flush=True)
        own = counts[kind]
        print(
            f"{kind:12} " + "  ".join(f"{name} {own[name]:5}" for name in ("read", "refused", *FAILED, "unnamed")),
            flush=True,
        )
    return int(any(own[name] for own in counts.values() for name in FAILED))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work()
    else:
        sys.exit(main())
