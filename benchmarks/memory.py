"""Peak memory at 1,000 and at 10,000 pictures read from a memory map, each in a process of its own.

python benchmarks/memory.py --files FOLDER      # a folder that benchmarks/encode.py filled
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

# 64 pixels high and wide: what is read matters here, not how long the network takes.
CHILD = """
import sys
import numpy as np
from berg import BERG

berg_dir, pictures, responses, n = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
model = BERG(berg_dir).get_encoding_model("fmri-nsd-fwrf", "cpu", {"roi": "V1"}, subject=1, precision="bfloat16")
stimuli = np.load(pictures, mmap_mode="r")[:n]
out = np.lib.format.open_memmap(responses, "w+", "float32", (n, 1350))
model.generate_response(stimuli, out=out)
status = open("/proc/self/status").read().splitlines()
for name in ("VmHWM", "RssAnon"):
    print(next(line.split()[1] for line in status if line.startswith(name)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs=2, default=(1000, 10000))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures.npy"
        shape = (max(arguments.counts), 3, 64, 64)
        array = np.lib.format.open_memmap(pictures, "w+", np.uint8, shape)
        array[:] = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        del array
        for count in arguments.counts:
            command = [
                sys.executable,
                "-c",
                CHILD,
                arguments.files / "berg",
                pictures,
                Path(folder) / "out.npy",
                str(count),
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
            peak, own = (int(kilobytes) / 2**20 for kilobytes in done.stdout.split())
            print(f"{count} pictures: peak {peak:.2f} GB, of its own at the end {own:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
