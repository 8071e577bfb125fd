"""Files of ``calcium_2p-wang_2025-3DCNN`` as they are published, with random numbers, and its equations once more.

The second writing goes frame by frame, stream by stream, with a plain sum for each layer, in float64.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .layouts import model_folder, write_pickled_npy

MODEL = "calcium_2p-wang_2025-3DCNN"
GAIN = 1.7015043497085571
STREAMS = range(4)
SMALL = {"width": 4, "out": 6, "channels": 3, "keys": 5, "groups": 8, "core_out": 7, "modulation": 4, "grid": (16, 24)}
FULL = {
    "width": 32, "out": 128, "channels": 32, "keys": 64, "groups": 8, "core_out": 128, "modulation": 16,
    "grid": (128, 192),
}  # fmt: skip
Weights = dict[str, torch.Tensor]


def retina_grid(height: int, width: int) -> NDArray[np.float64]:
    """The directions of rays through the retina, of a fish-eye lens of 75 degrees."""
    x = np.linspace(-1, 1, width) * (width - 1) / width
    y = np.linspace(-1, 1, height) * (height / width) * (width - 1) / width
    x, y = np.meshgrid(x, y)
    r, theta = np.clip(np.hypot(x, y) * np.deg2rad(75), 0, np.pi / 2), np.arctan2(y, x)
    return np.stack([np.sin(r) * np.cos(theta), np.sin(r) * np.sin(theta), np.cos(r)], -1)


def random_weights(rng: np.random.Generator, n_units: int, sizes: dict[str, Any] = SMALL) -> tuple[Weights, Weights]:
    """Tensors of the core, and of a scan, by their published names."""
    core, scan = Weights(), Weights()
    w, g, r, d, m = (sizes[key] for key in ("width", "groups", "channels", "keys", "modulation"))

    def layer(
        into: Weights, name: str, shape: Sequence[int], gains: Any = None, biases: Any = None, n: int = 4
    ) -> None:
        for stream in range(n):
            into[f"{name}.weights.{stream}"] = _normal(rng, shape) / np.sqrt(np.prod(shape[1:]))
            if gains:
                into[f"{name}.gains.{stream}"] = 1 + 0.2 * _normal(rng, gains)
            if biases:
                into[f"{name}.biases.{stream}"] = 0.2 * _normal(rng, biases)

    one, previous = (1, 1, 1), 1
    for block, groups in enumerate((1, 2, 4)):
        name, shape = "core.feedforward", (groups, w)
        size, raw = ((1, 6, 6), True) if block == 0 else (one, False)
        layer(core, f"{name}.inputs.{block}", (groups * w, previous, *size), None if raw else shape, shape)
        for conv in (0, 1):
            layer(core, f"{name}.blocks.{block}.convs.{conv}", (groups * w, w, 3, 3, 3), shape, shape)
        layer(core, f"{name}.blocks.{block}.skips.1", (groups * w, w, *one), shape)
        previous = 3 * groups * w
    layer(core, "core.feedforward.out", (sizes["out"], previous, *one), (1, sizes["out"]), (1, sizes["out"]))

    name = "core.recurrent"
    layer(core, f"{name}.conv", (g * d, 2 * r, 1, 3, 3))
    for stream in STREAMS:
        core[f"{name}.scales.{stream}"] = 3 + _normal(rng, (g, d))
        core[f"{name}.proj_x.0.weights.{stream}"] = _normal(rng, (g, g - 1, r, r))
        core[f"{name}.proj_x.0.gains.{stream}"] = 1 + 0.2 * _normal(rng, (g, r))
    core[f"{name}.proj_x.0.mask"] = torch.eye(g)[:, :, None, None] == 0
    core[f"{name}.proj_x.0.zero"] = torch.zeros(g, g, r, r)
    layer(core, f"{name}.proj_x.1", (g * r, sizes["out"], *one), (g, r), (g, r))
    layer(core, f"{name}.proj_x.2", (g * r, m, *one), (g, r))
    for part in "qkv":
        layer(core, f"{name}.proj_{part}", (g * d, d, *one))
    for gate in "ifgo":
        layer(core, f"{name}.proj_{gate}", (g * r, 2 * d, *one), (g, r), (g, r))
    layer(core, f"{name}.out", (sizes["core_out"], g * r, *one), (1, sizes["core_out"]), (1, sizes["core_out"]))

    name = "perspective"
    scan |= {
        f"{name}.monitor.center": torch.tensor([0.05, -0.1, 0.6]), f"{name}.monitor.angle": 0.1 * _normal(rng, (3,)),
        f"{name}.monitor.center_std": torch.ones(3), f"{name}.monitor.angle_std": torch.ones(3),
        f"{name}.monitor_pixel.power": torch.tensor(1.7), f"{name}.monitor_pixel.scale": torch.tensor(1.0),
        f"{name}.monitor_pixel.offset": torch.tensor(0.0), f"{name}.retina_pixel.logit": torch.tensor([0.3]),
        f"{name}.retina_pixel.scale": torch.tensor([1.9]), f"{name}.retina_pixel.offset": torch.tensor([-0.7]),
        f"{name}.retina.grid": torch.from_numpy(retina_grid(*sizes["grid"])).float(),
    }  # fmt: skip
    layer(scan, f"{name}.mlp.linears.0", (16, 2, *one), None, (1, 16), n=1)
    for number, outputs in ((1, 16), (2, 16), (3, 3)):
        layer(scan, f"{name}.mlp.linears.{number}", (outputs, 16, *one), (1, outputs), (1, outputs), n=1)
    scan[f"{name}.mlp.linears.3.gains.0"] *= 0.1  # an eye turns by some degrees

    layer(scan, "modulation.mlp.linears.0", (m, 2, *one), None, (1, m))
    for gate in "ifgo":
        layer(scan, f"modulation.lstm.proj_{gate}", (m, 2 * m, *one), (1, m), (1, m))

    scan["readout.position.mu"] = _normal(rng, (n_units, 2))
    scan["readout.position.sigma"] = _normal(rng, (n_units, 2, 2))
    for stream in STREAMS:
        features = _normal(rng, (n_units, 1, sizes["core_out"])) / np.sqrt(sizes["core_out"])
        scan[f"readout.feature.weights.{stream}"] = features
        scan[f"readout.feature.biases.{stream}"] = 0.2 * _normal(rng, (n_units, 1))
    return core, scan


def _normal(rng: np.random.Generator, shape: Sequence[int]) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32))


def metadata(rng: np.random.Generator, session: int, scan: int, n_units: int, n_fields: int) -> dict[str, Any]:
    """The metadata of a scan; each neuron in one area and one field."""
    areas, fields = rng.integers(0, 4, n_units), rng.integers(1, n_fields + 1, n_units)
    tuning = {name: rng.uniform(0, 1, n_units) for name in ("OSI", "DSI", "gOSI", "gDSI", "pref_ori", "pref_dir")}
    accuracy = {name: rng.uniform(0, 1, n_units) for name in ("cc_abs", "cc_max", "cc_norm")}
    return {
        "calcium_2p": {
            "session": session, "scan": scan, "animal_id": 17797, "unit_id": rng.permutation(n_units) + 1,
            "coordinates": rng.uniform(0, 1000, (n_units, 3)), **tuning,
            "roi": {name: (areas == number).astype(int) for number, name in enumerate(("V1", "LM", "AL", "RL"))},
            "field_masks": {f"field_{field}": (fields == field).astype(int) for field in range(1, n_fields + 1)},
        },
        "encoding_model": accuracy,
    }  # fmt: skip


def write_scan(
    berg_dir: Path,
    session: int = 8,
    scan: int = 5,
    n_units: int = 60,
    seed: int = 0,
    sizes: dict[str, Any] = SMALL,
    n_fields: int = 8,
) -> tuple[Weights, Weights]:
    """Write core, scan, lists of scans and units, and metadata of one scan; returns core and scan."""
    rng = np.random.default_rng(seed)
    core, own = random_weights(rng, n_units, sizes)
    folder = model_folder(berg_dir, MODEL)
    weights = folder / "encoding_models_weights"
    weights.mkdir(parents=True, exist_ok=True)
    torch.save(core, weights / "params_core.pt")
    torch.save(own, weights / f"params_{session}_{scan}.pt")
    known = metadata(rng, session, scan, n_units, n_fields)
    write_pickled_npy(folder / "metadata" / f"session-{session}_scan-{scan}_metadata.npy", known)
    rows = enumerate(known["calcium_2p"]["unit_id"].tolist())
    _write_csv(weights / "scans.csv", ["session", "scan_idx", "units"], [[session, scan, n_units]])
    table = [[session, scan, readout, unit] for readout, unit in rows]
    _write_csv(weights / "units.csv", ["session", "scan_idx", "readout_id", "unit_id"], table[::-1])
    return core, own


def _write_csv(path: Path, names: list[str], rows: list[list[int]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])


# The equations once more


def _effective(w: Any, name: str, stream: int) -> Any:
    weights = w[f"{name}.weights.{stream}"].double()
    flat = weights.flatten(1)
    mean, variance = flat.mean(1, keepdim=True), flat.var(1, correction=0, keepdim=True)
    flat = (flat - mean) / torch.sqrt(variance * flat.shape[1] + 1e-5)
    if f"{name}.gains.{stream}" in w:
        flat = flat * w[f"{name}.gains.{stream}"].double().flatten()[:, None]
    return flat.reshape(weights.shape)


def _bias(w: Any, name: str, stream: int) -> Any:
    return w[f"{name}.biases.{stream}"].double().flatten() if f"{name}.biases.{stream}" in w else 0.0


def _pointwise(w: Any, name: str, stream: int, x: Any, groups: int = 1, raw: bool = False) -> Any:
    """A 1 x 1 layer of one stream, x of shape (channels, ...)."""
    weights = w[f"{name}.weights.{stream}"].double() if raw else _effective(w, name, stream)
    matrix = weights.reshape(weights.shape[0], weights.shape[1])
    each = [
        torch.einsum("oi,i...->o...", part, own)
        for part, own in zip(matrix.chunk(groups), x.chunk(groups), strict=True)
    ]
    bias = _bias(w, name, stream)
    whole = torch.cat(each)
    return whole + (bias.reshape(-1, *[1] * (whole.ndim - 1)) if isinstance(bias, torch.Tensor) else 0)


def _spatial(kernel: Any, x: Any, groups: int) -> Any:
    """A convolution of 3 x 3 with zeros around, kernel (out, in, 3, 3), x (channels, height, width)."""
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    height, width = x.shape[1:]
    each = []
    for part, own in zip(kernel.chunk(groups), padded.chunk(groups), strict=True):
        each.append(
            sum(
                torch.einsum("oi,ihw->ohw", part[:, :, dy, dx], own[:, dy : dy + height, dx : dx + width])
                for dy in range(3)
                for dx in range(3)
            )
        )
    return torch.cat(each)


def _phi(x: Any) -> Any:
    return GAIN * 0.5 * x * (1 + torch.erf(x / np.sqrt(2)))


def _interleaved(parts: Sequence[Any], groups: int) -> Any:
    return torch.cat([own for each in zip(*(part.chunk(groups) for part in parts), strict=True) for own in each])


def _rotation(angles: Any) -> Any:
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return z @ y @ x


def _bilinear(picture: Any, x: float, y: float, beyond: str) -> Any:
    """A picture (..., height, width) at a place in [-1, 1], the edges of its pixels."""
    height, width = picture.shape[-2:]
    column, row = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2
    if beyond == "border":
        column, row = min(max(column, 0), width - 1), min(max(row, 0), height - 1)
    total = 0.0 * picture[..., 0, 0]
    left, top = int(np.floor(column)), int(np.floor(row))
    for r in (top, top + 1):
        for c in (left, left + 1):
            share = (1 - abs(row - r)) * (1 - abs(column - c))
            if 0 <= r < height and 0 <= c < width:
                total = total + share * picture[..., r, c]
    return total


def seen(w: Any, frame: NDArray[Any], eye: NDArray[Any]) -> NDArray[np.float64]:
    """What the retina sees of a frame."""
    x = torch.from_numpy(np.asarray(eye, float))
    for number in range(4):
        x = _pointwise(w, f"perspective.mlp.linears.{number}", 0, _phi(x) if number else x, raw=number == 0)
    rotated = w["perspective.retina.grid"].double().numpy() @ _rotation(x.numpy()).T
    monitor = _rotation(w["perspective.monitor.angle"].double().numpy())
    center = w["perspective.monitor.center"].double().numpy()
    across, down, ahead = monitor[:, 0], monitor[:, 1], monitor[:, 2]
    power, scale, offset = (w[f"perspective.monitor_pixel.{name}"].item() for name in ("power", "scale", "offset"))
    shown = (frame / 255.0) ** power * scale + offset
    height, width = rotated.shape[:2]
    found = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            ray = rotated[i, j]
            d = (ahead @ center) / max(ahead @ ray, 1e-5) * ray - center
            gx = (d @ across) * (256 / 255) * (191 / 192)
            gy = (d @ down) * (256 / 144) * (256 / 255) * (127 / 128)
            found[i, j] = _bilinear(shown, gx, gy, "zeros") if abs(gx) < 2 and abs(gy) < 2 else 0
    logit, scale, offset = (w[f"perspective.retina_pixel.{name}"].item() for name in ("logit", "scale", "offset"))
    exponent = 1 / (1 + np.exp(-logit))
    return np.asarray((found + 1e-5) ** exponent * scale + offset)


def _between(w: Any, stream: int, n_groups: int, h: Any) -> Any:
    weights = w[f"core.recurrent.proj_x.0.weights.{stream}"].double()
    gains = w[f"core.recurrent.proj_x.0.gains.{stream}"].double()
    groups = h.chunk(n_groups)
    outputs = []
    for to in range(n_groups):
        others = [g for g in range(n_groups) if g != to]
        for output in range(weights.shape[2]):
            row = weights[to, :, output]  # (slot, input)
            row = (row - row.mean()) / torch.sqrt(row.var(correction=0) * row.numel() + 1e-5) * gains[to, output]
            outputs.append(sum(torch.einsum("i,ihw->hw", row[s], groups[g]) for s, g in enumerate(others)))
    return torch.stack(outputs)


def activity(
    w: Any, film: NDArray[Any], eye: NDArray[Any] | None = None, behaviour: NDArray[Any] | None = None
) -> NDArray[np.float64]:
    """The activity of all units to a film (frames, 144, 256), shape (frames, units)."""
    eye = np.zeros((len(film), 2)) if eye is None else eye
    behaviour = np.zeros((len(film), 2)) if behaviour is None else behaviour
    n_groups = w["core.recurrent.scales.0"].shape[0]
    past: dict[Any, list[Any]] = {}
    memory: dict[Any, Any] = {}
    rows = []
    for t, frame in enumerate(film):
        retina = torch.from_numpy(seen(w, frame, eye[t]))[None]
        maps = []
        for s in STREAMS:
            m = _modulated(w, s, torch.from_numpy(np.asarray(behaviour[t], float)), memory)
            f = _feedforward(w, s, retina, past)
            maps.append(_recurrent(w, s, f, m, n_groups, memory))
        rows.append(_read(w, maps))
    return np.array(rows)


def _modulated(w: Any, s: int, b: Any, memory: dict[Any, Any]) -> Any:
    x = _phi(_pointwise(w, "modulation.mlp.linears.0", s, b, raw=True))
    h, c = memory.get(("m", s), (torch.zeros(len(x)).double(), torch.zeros(len(x)).double()))
    i, f, g, o = (_pointwise(w, f"modulation.lstm.proj_{gate}", s, torch.cat([x, h])) for gate in "ifgo")
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    memory["m", s] = h, c
    return h


def _in_time(w: Any, name: str, s: int, x: Any, groups: int, past: dict[Any, list[Any]]) -> Any:
    before = past.setdefault((name, s), [torch.zeros_like(x), torch.zeros_like(x)])
    frames = [*before[-2:], x]
    past[name, s] = frames[1:]
    kernel = _effective(w, name, s)
    whole = sum(_spatial(kernel[:, :, k], frames[k], groups) for k in range(3))
    return whole + _bias(w, name, s)[:, None, None]


def _feedforward(w: Any, s: int, x: Any, past: dict[Any, list[Any]]) -> Any:
    name = "core.feedforward"
    for block, groups in enumerate((1, 2, 4)):
        if block == 0:
            kernel = w[f"{name}.inputs.0.weights.{s}"].double()[:, :, 0]
            padded = torch.nn.functional.pad(x[None], (2, 2, 2, 2), mode="replicate")
            x = torch.nn.functional.conv2d(padded, kernel, _bias(w, f"{name}.inputs.0", s), stride=2)[0]
        else:
            x = _pointwise(w, f"{name}.inputs.{block}", s, x)
        y0 = _phi(x)
        x1 = _in_time(w, f"{name}.blocks.{block}.convs.0", s, y0, groups, past)
        x2 = _in_time(w, f"{name}.blocks.{block}.convs.1", s, _phi(x1), groups, past)
        x2 = x2 + _pointwise(w, f"{name}.blocks.{block}.skips.1", s, y0, groups)
        x = _interleaved([x, x1, x2], groups)
        if block < 2:
            channels, height, width = x.shape
            x = x.reshape(channels, height // 2, 2, width // 2, 2).mean((2, 4))
    return _pointwise(w, f"{name}.out", s, x)


def _recurrent(w: Any, s: int, f: Any, m: Any, groups: int, memory: dict[Any, Any]) -> Any:
    name, (_, height, width) = "core.recurrent", f.shape
    n_channels = w[f"{name}.out.weights.{s}"].shape[1]
    nothing = torch.zeros(n_channels, height, width).double()
    h, c = memory.get(("r", s), (nothing, nothing))
    x = _between(w, s, groups, h) + _pointwise(w, f"{name}.proj_x.1", s, f)
    x = torch.tanh(x + _pointwise(w, f"{name}.proj_x.2", s, m)[:, None, None])
    z = _spatial(_effective(w, f"{name}.conv", s)[:, :, 0], _interleaved([x, h], groups), groups)
    q, k, v = (_pointwise(w, f"{name}.proj_{part}", s, z, groups) for part in "qkv")
    scales = w[f"{name}.scales.{s}"].double()
    attended = []
    for g, (qg, kg, vg) in enumerate(zip(q.chunk(groups), k.chunk(groups), v.chunk(groups), strict=True)):
        qf, kf, vf = qg.flatten(1), kg.flatten(1), vg.flatten(1)
        qf = qf / qf.square().sum(0).sqrt() * scales[g][:, None]
        kf = kf / kf.square().sum(0).sqrt()
        share = torch.exp(torch.einsum("cq,ck->qk", qf, kf))
        attended.append(torch.einsum("ck,qk->cq", vf, share / share.sum(1, keepdim=True)).reshape(vg.shape))
    za = _interleaved([z, torch.cat(attended)], groups)
    i, fg, gg, o = (_pointwise(w, f"{name}.proj_{gate}", s, za, groups) for gate in "ifgo")
    c = torch.sigmoid(fg) * c + torch.sigmoid(i) * torch.tanh(gg)
    h = torch.sigmoid(o) * torch.tanh(c)
    memory["r", s] = h, c
    return _pointwise(w, f"{name}.out", s, h)


def _read(w: Any, maps: list[Any]) -> list[float]:
    mu, values = torch.tanh(w["readout.position.mu"].double()), []
    for unit, (x, y) in enumerate(mu.tolist()):
        each = [
            w[f"readout.feature.weights.{s}"][unit, 0].double() @ _bilinear(maps[s], x, y, "border")
            + w[f"readout.feature.biases.{s}"][unit, 0].double()
            for s in STREAMS
        ]
        values.append(float(torch.exp(sum(each) / 4)))
    return values
