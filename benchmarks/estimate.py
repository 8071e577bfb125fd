"""What `estimate` says of a run beside what the run then takes, each in a process of its own.

    python benchmarks/estimate.py                      # the built-in models
    python benchmarks/estimate.py --files FOLDER       # and the published ones, in a folder that encode.py filled

The runs are short enough to wait for; the estimate has measured some batches of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

PRF, LN_RENEWAL = "fmri-szinte2024-prf_css", "ephys-rokem2006-ln_renewal"
N_STIMULI = {
    PRF: 4096,
    LN_RENEWAL: 400,
    "eeg": 768,
    "fsaverage-V1v": 768,
    "fsaverage-whole": 512,
    "fwrf-V1": 1280,
    "fwrf-lateral": 384,
}


def stimuli_of(case: str, n_stimuli: int) -> tuple[Any, dict[str, Any]]:
    """Random pictures or sounds, and the options that go with them."""
    generator = np.random.default_rng(0)
    if case == LN_RENEWAL:
        return generator.standard_normal((n_stimuli, 20_000), dtype=np.float32), {"sampling_rate": 20_000}
    return generator.integers(0, 256, (n_stimuli, 3, 224, 224), dtype=np.uint8), {}


def load(case: str, files: Path | None) -> Any:
    """The model of the case, on the CPU."""
    from berg import BERG

    if case in (PRF, LN_RENEWAL):
        return BERG().get_encoding_model(case, "cpu")
    from benchmarks.encode import CASES

    assert files is not None
    os.environ["TORCH_HOME"] = str(files / "torch")
    model_id, roi = CASES[case]
    return BERG(files / "berg").get_encoding_model(model_id, "cpu", {"roi": roi} if roi else None, subject=1)


def child(case: str, side: str, files: Path | None) -> dict[str, float]:
    """Seconds, bytes of disk and bytes of memory: as said, or as taken."""
    from berg.encoding.estimate import estimate
    from berg.encoding.stream import encode_to_store

    stimuli, options = stimuli_of(case, N_STIMULI[case])
    model = load(case, files)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "r.zarr")
        if side == "said":
            said = estimate(model, stimuli, path, **options)
            return {"seconds": said.seconds, "disk": said.disk_bytes, "memory": said.memory_bytes}
        model.generate_response(stimuli[:32], **options)
        began = time.perf_counter()
        encode_to_store(model, stimuli, path, show_progress=False, **options)
        seconds = time.perf_counter() - began
        chunks = (file for name in outputs_of(model) for file in path.glob(f"**/{name}/c/**/*"))
        disk = sum(file.stat().st_size for file in chunks if file.is_file())
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = 1024 * int(next(line.split()[1] for line in status if line.startswith("VmHWM")))
    return {"seconds": seconds, "disk": disk, "memory": peak}


def outputs_of(model: Any) -> list[str]:
    """The names of the arrays in a store."""
    return ["status", *(output.name for output in model.card.outputs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path)
    parser.add_argument("--cases", nargs="*", choices=list(N_STIMULI))
    parser.add_argument("--child", nargs=2, metavar=("CASE", "SIDE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(*arguments.child, arguments.files)))
        return
    cases = arguments.cases or (list(N_STIMULI) if arguments.files else [PRF, LN_RENEWAL])
    print(f"{'':28}" + "".join(f"{name:>24}" for name in ("seconds", "disk (MB)", "memory (MB)")))
    print(f"{'':28}" + f"{'said':>9}{'was':>9}{'ratio':>6}" * 3)
    for case in cases:
        sides = {}
        for side in ("said", "was"):
            command = [sys.executable, __file__, "--child", case, side]
            command += ["--files", str(arguments.files)] if arguments.files else []
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            sides[side] = json.loads(done.stdout.splitlines()[-1])
        row = f"{case:28}"
        for name, scale in (("seconds", 1.0), ("disk", 1e6), ("memory", 1e6)):
            said, was = sides["said"][name] / scale, sides["was"][name] / scale
            row += f" {said:8.1f} {was:8.1f} {said / was:5.2f}"
        print(row, flush=True)


if __name__ == "__main__":
    main()
