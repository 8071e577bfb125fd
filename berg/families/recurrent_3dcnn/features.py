"""From a film to what the core of a recurrent 3-D CNN makes of it, frame by frame.

    frame -> perspective (eye, monitor, retina) -> feedforward core (3-D convolutions)
          -> recurrent core (attention, gates), with modulation by behaviour -> maps of features

What a frame does to the next ones is kept in a `State`, so that a film may be computed in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn, unflatten
from torch.nn import functional as F

from berg.families.recurrent_3dcnn.state_dict import BLOCK_GROUPS, N_STREAMS, Layer, Tensors, between_groups

GELU_GAIN = 1.7015043497085571
"""So that the output of the nonlinearity has the variance of its input, as the model was trained."""
_FRAME = (144, 256)  # height and width of a frame
_LONGEST = 1e-5  # of the depth of a ray that is divided by
_PIECE_BYTES = 2**26  # of the activations at the full resolution of the feedforward core


@dataclass(frozen=True)
class State:
    """What is kept of the frames before the next one, of n films.

    Attributes
    ----------
    history
        For each convolution in time its last two inputs, shape (n, channels, 2, height, width).
    modulation
        Output and cell, shape (n_streams, n, units).
    recurrent
        Output and cell of the recurrent core, shape (n_streams * n_groups, n * n_positions, channels).
    """

    history: tuple[Tensor, ...]
    modulation: tuple[Tensor, Tensor]
    recurrent: tuple[Tensor, Tensor]


class Maps:
    """The features of films, computed in pieces when they are asked for, once.

    Attributes
    ----------
    n_films
        None if it is one film without an axis of films.
    """

    def __init__(self, pieces: Iterator[Tensor], n_films: int | None) -> None:
        self.pieces, self.n_films = pieces, n_films

    def __iter__(self) -> Iterator[Tensor]:
        """Pieces in time, shape (n_films, n_frames, n_positions, n_channels)."""
        return self.pieces


class FilmFeatures(nn.Module):
    """Films -> maps of features; of one film given frame by frame, the state is kept between calls.

    A batch may be asked for again, so the states before and after the last one are kept.
    """

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        self.perspective = Perspective(tensors)
        self.modulation = Modulation(tensors)
        self.feedforward = Feedforward(tensors)
        height, width = self.perspective.shape
        self.size = height // 8, width // 8  # of the maps
        self.recurrent = Recurrent(tensors, self.feedforward.n_outputs, self.modulation.n_units, self.size)
        self.first: int | None = None
        self.kept: dict[int, State] = {}

    def begin_at(self, first: int | None) -> None:
        """The number of the next frame of a film; untold or None, the next ones begin a film and nothing is kept."""
        self.first = first

    def forward(self, films: Tensor) -> Maps:
        """Frames of one film, shape (n_frames, height, width), or films, (n_films, n_frames, height, width).

        A row more than the height holds what `berg.stimuli.films` puts there: eye position and behaviour.
        """
        if films.ndim == 4:
            return Maps(self._pieces(films, None), len(films))
        first, self.first = self.first, None  # told anew before each batch
        return Maps(self._continued(films[None], first, self._state_at(first)), None)

    def _state_at(self, first: int | None) -> State | None:
        """What was kept of the frames before this one; None at the beginning."""
        if not first:
            return None
        if first not in self.kept:
            raise RuntimeError(f"Frame {first} was asked for, and the frames before it were not computed.")
        return self.kept[first]

    def _continued(self, film: Tensor, first: int | None, state: State | None) -> Iterator[Tensor]:
        if first is not None:
            self.kept = {} if state is None else {first: state}
        last = state
        for piece, after in self._stepped(film, state):
            last = after
            yield piece
        if first is not None and last is not None:
            self.kept[first + film.shape[1]] = last

    def _pieces(self, films: Tensor, state: State | None) -> Iterator[Tensor]:
        for piece, _ in self._stepped(films, state):
            yield piece

    def _stepped(self, films: Tensor, state: State | None) -> Iterator[tuple[Tensor, State]]:
        for frames in torch.split(films, self._piece_length(len(films)), dim=1):
            maps, state = self.step(frames, state)
            yield maps, state

    def _piece_length(self, n_films: int) -> int:
        return max(1, _PIECE_BYTES // (n_films * self.feedforward.frame_bytes(self.perspective.shape)))

    def step(self, frames: Tensor, state: State | None) -> tuple[Tensor, State]:
        """The maps of some frames, and the state after them.

        Parameters
        ----------
        frames
            Shape (n_films, n_frames, height, width).
        state
            None: nothing came before.

        Returns
        -------
        maps
            Shape (n_films, n_frames, n_positions, n_channels), channels stream by stream.
        """
        pixels, eye, behaviour = _parts(frames)
        seen = self.perspective(pixels, eye)
        history = None if state is None else state.history
        driven, history = self.feedforward(seen, history)
        modulated, modulation = self.modulation(behaviour, None if state is None else state.modulation)
        maps, recurrent = self.recurrent(driven, modulated, None if state is None else state.recurrent)
        return maps, State(history, modulation, recurrent)


def _parts(frames: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Pixels in [0, 1], eye position (None: looking straight), and behaviour, shape (n_films, n_frames, 2)."""
    n_films, n_frames, height, _ = frames.shape
    if height == _FRAME[0]:
        pixels = frames.float() / 255 if not frames.is_floating_point() else frames / 255
        return pixels, None, torch.zeros(n_films, n_frames, 2, device=frames.device, dtype=pixels.dtype)
    values = frames[:, :, -1, :16].contiguous().view(torch.float32)
    return frames[:, :, :-1].float() / 255, values[..., :2], values[..., 2:]


def phi(x: Tensor) -> Tensor:
    """The nonlinearity but for its gain, which the weights after it have in them."""
    return F.gelu(x)


class Perspective(nn.Module):
    """The monitor as the retina sees it, shape (n_films, 1, n_frames, height, width) of the retina."""

    grid: Tensor
    monitor: Tensor
    center: Tensor
    still: Tensor

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        self.register_buffer("grid", tensors.get("perspective.retina.grid", (None, None, 3)))
        self.register_buffer("center", tensors.get("perspective.monitor.center", (3,)))
        angle = tensors.get("perspective.monitor.angle", (3,))
        self.register_buffer("monitor", rotation(angle))
        self.power, self.scale, self.offset = (
            tensors.scalar(f"perspective.monitor_pixel.{name}") for name in ("power", "scale", "offset")
        )
        logit, self.out_scale, self.out_offset = (
            tensors.scalar(f"perspective.retina_pixel.{name}") for name in ("logit", "scale", "offset")
        )
        self.exponent = float(torch.tensor(logit).sigmoid())
        self._read_mlp(tensors)
        self.register_buffer("still", self.places(torch.zeros(1, 2))[0], persistent=False)

    def _read_mlp(self, tensors: Tensors) -> None:
        name = "perspective.mlp.linears"
        layers = [tensors.layer(f"{name}.0", (None, 2, 1, 1, 1), gains=False, standardize=False, n_streams=1)]
        for number in (1, 2, 3):
            n_inputs = layers[-1].n_outputs
            outputs = 3 if number == 3 else None
            layers.append(tensors.layer(f"{name}.{number}", (outputs, n_inputs, 1, 1, 1), n_streams=1))
        for number, layer in enumerate(layers):
            gain = GELU_GAIN if number else 1.0
            self.register_buffer(f"weights_{number}", gain * layer.weights[0].flatten(1))
            self.register_buffer(f"biases_{number}", layer.biases[0] if layer.biases is not None else None)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the retina."""
        return int(self.grid.shape[0]), int(self.grid.shape[1])

    def forward(self, pixels: Tensor, eye: Tensor | None) -> Tensor:
        n_films, n_frames = pixels.shape[:2]
        shown = pixels.pow(self.power) * self.scale + self.offset
        if eye is None:
            seen = _sampled(shown.reshape(1, -1, *pixels.shape[2:]), self.still[None].to(pixels))
        else:
            grid = self.places(eye.reshape(-1, 2))
            seen = _sampled(shown.reshape(-1, 1, *pixels.shape[2:]), grid)
        seen = (seen + 1e-5).pow(self.exponent) * self.out_scale + self.out_offset
        return seen.reshape(n_films, 1, n_frames, *self.shape)

    def angles(self, eye: Tensor) -> Tensor:
        """The angles that the eye is turned by, shape (n, 3)."""
        x = eye
        for number in range(4):
            x = F.linear(phi(x) if number else x, getattr(self, f"weights_{number}"), getattr(self, f"biases_{number}"))
        return x

    def places(self, eye: Tensor) -> Tensor:
        """Where on the monitor each point of the retina looks, as `grid_sample` counts, shape (n, height, width, 2)."""
        rays = torch.einsum("nij,hwj->nhwi", rotation(self.angles(eye)), self.grid)
        across, down, ahead = self.monitor.unbind(-1)  # the axes of the monitor
        depth = (rays @ ahead).clamp(min=_LONGEST)
        hit = (self.center @ ahead / depth)[..., None] * rays - self.center
        height, width = _FRAME
        of_pixels = width / (width - 1)
        x = hit @ across * of_pixels * (191 / 192)
        y = hit @ down * (width / height) * of_pixels * (127 / 128)
        return torch.stack([x, y], -1)


def _sampled(pictures: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def rotation(angles: Tensor) -> Tensor:
    """Rotation by angles around x, then y, then z: ``Rz @ Ry @ Rx``, shape (..., 3, 3); angles (..., 3) in radians."""
    cosines, sines = angles.cos(), angles.sin()
    zero, one = torch.zeros_like(cosines[..., 0]), torch.ones_like(cosines[..., 0])
    (cx, cy, cz), (sx, sy, sz) = cosines.unbind(-1), sines.unbind(-1)

    def matrix(*rows: Tensor) -> Tensor:
        return unflatten(torch.stack(rows, -1), -1, (3, 3))

    around_x = matrix(one, zero, zero, zero, cx, -sx, zero, sx, cx)
    around_y = matrix(cy, zero, sy, zero, one, zero, -sy, zero, cy)
    around_z = matrix(cz, -sz, zero, sz, cz, zero, zero, zero, one)
    return around_z @ around_y @ around_x


class Modulation(nn.Module):
    """Behaviour -> an LSTM per stream, shape (n_streams, n_films, n_frames, n_units)."""

    hidden: Tensor
    hidden_biases: Tensor
    gates: Tensor
    gate_biases: Tensor

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        first = tensors.layer("modulation.mlp.linears.0", (None, 2, 1, 1, 1), gains=False, standardize=False)
        self.n_units = tensors.layer("modulation.lstm.proj_i", (None, None, 1, 1, 1)).n_outputs
        shape = (self.n_units, first.n_outputs + self.n_units, 1, 1, 1)
        weights, biases = _side_by_side([tensors.layer(f"modulation.lstm.proj_{gate}", shape) for gate in "ifog"])
        weights[:, : first.n_outputs] *= GELU_GAIN
        self.register_buffer("hidden", first.of_groups(1))
        self.register_buffer("hidden_biases", _biases(first))
        self.register_buffer("gates", weights)
        self.register_buffer("gate_biases", biases)

    def forward(self, behaviour: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        n_films = len(behaviour)
        if state is None:
            nothing = behaviour.new_zeros(N_STREAMS, n_films, self.n_units)
            state = nothing, nothing
        x = unflatten(phi(behaviour.flatten(0, 1) @ self.hidden + self.hidden_biases), 1, (n_films, -1))
        outputs = []
        for frame in x.unbind(2):
            h, c = state
            gates = torch.cat([frame, h], -1) @ self.gates + self.gate_biases
            state = _gated(gates, c)
            outputs.append(state[0])
        return torch.stack(outputs, 2), state


def _gated(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Output and cell after gates i, f, o and g, side by side on the last axis."""
    width = cell.shape[-1]
    i, f, o = torch.split(gates[..., : 3 * width].sigmoid(), width, -1)
    cell = torch.addcmul(f * cell, i, gates[..., 3 * width :].tanh())
    return o * cell.tanh(), cell


def _biases(layer: Layer, n_groups: int = 1) -> Tensor:
    """Shape (n_streams * n_groups, 1, n_outputs of a group)."""
    assert layer.biases is not None
    return unflatten(layer.biases, 1, (n_groups, -1)).flatten(0, 1)[:, None].contiguous()


def _side_by_side(layers: list[Layer], n_groups: int = 1) -> tuple[Tensor, Tensor]:
    """Weights and biases of layers with the same inputs, as one."""
    weights = torch.cat([layer.of_groups(n_groups) for layer in layers], -1)
    return weights, torch.cat([_biases(layer, n_groups) for layer in layers], -1)


class Feedforward(nn.Module):
    """Pictures of the retina -> features per stream, shape (n_streams, n_frames, n_films, n_positions, n_outputs)."""

    out: Tensor
    out_biases: Tensor

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        n_inputs = 1
        for number, n_groups in enumerate(BLOCK_GROUPS):
            block = Block(tensors, number, n_inputs, n_groups)
            self.blocks.append(block)
            n_inputs = 3 * block.width
        out = tensors.layer("core.feedforward.out", (None, n_inputs, 1, 1, 1))
        self.n_outputs = out.n_outputs
        self.register_buffer("out", out.of_groups(1))
        self.register_buffer("out_biases", _biases(out))

    def frame_bytes(self, retina: tuple[int, int]) -> int:
        """Of one activation at the resolution of the first block."""
        first = self.blocks[0]
        assert isinstance(first, Block)
        return 4 * N_STREAMS * 3 * first.width * retina[0] * retina[1] // 4

    def forward(self, seen: Tensor, history: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        x, kept = seen, list[Tensor]()
        for number, block in enumerate(self.blocks):
            own = None if history is None else history[2 * number : 2 * number + 2]
            x, after = block(x, own)
            kept += after
            if number < len(self.blocks) - 1:
                x = unflatten(F.avg_pool2d(x.flatten(1, 2), 2), 1, x.shape[1:3])
        # (n_films, stream, channel, frame, position) -> (stream, frame, film, position, channel)
        by_stream = unflatten(x, 1, (N_STREAMS, -1)).flatten(4).permute(1, 3, 0, 4, 2)
        shape = by_stream.shape[:-1]
        outputs = torch.baddbmm(self.out_biases, by_stream.flatten(1, 3), self.out)
        return unflatten(outputs, 1, shape[1:]), tuple(kept)


class Block(nn.Module):
    """Channels x -> [x, x1, x2] in each group: x1 and x2 are made by convolutions over three frames.

    y0 = phi(x); x1 = conv0(y0); y1 = phi(x1); x2 = conv1(y1) + skip1(y0)
    """

    enter: Tensor
    enter_biases: Tensor
    conv0: Tensor
    conv0_biases: Tensor
    conv1: Tensor
    conv1_biases: Tensor
    skip: Tensor

    def __init__(self, tensors: Tensors, number: int, n_inputs: int, n_groups: int) -> None:
        super().__init__()
        name, is_first = "core.feedforward", number == 0
        size = (6, 6) if is_first else (1, 1)
        enter = tensors.layer(
            f"{name}.inputs.{number}", (None, n_inputs, 1, *size), gains=not is_first, standardize=not is_first
        )
        self.is_first, self.width, self.n_groups = is_first, enter.n_outputs, N_STREAMS * n_groups
        width = tensors.of_a_group(f"{name}.inputs.{number}", self.width, n_groups)
        self._keep("enter", enter, 1)
        for conv in (0, 1):
            shape = (self.width, width, 3, 3, 3)
            self._keep(f"conv{conv}", tensors.layer(f"{name}.blocks.{number}.convs.{conv}", shape), GELU_GAIN)
        shape = (self.width, width, 1, 1, 1)
        self._keep("skip", tensors.layer(f"{name}.blocks.{number}.skips.1", shape, biases=False), GELU_GAIN)

    def _keep(self, name: str, layer: Layer, gain: float) -> None:
        self.register_buffer(name, gain * layer.weights.flatten(0, 1))
        biases = None if layer.biases is None else layer.biases.flatten()
        self.register_buffer(f"{name}_biases", biases)

    def forward(self, inputs: Tensor, history: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        x = self._entered(inputs)
        y = phi(x)
        y0, kept0 = _after(y, None if history is None else history[0])
        x1 = F.conv3d(y0, self.conv0, self.conv0_biases, padding=(0, 1, 1), groups=self.n_groups)
        y1, kept1 = _after(phi(x1), None if history is None else history[1])
        x2 = F.conv3d(y1, self.conv1, self.conv1_biases, padding=(0, 1, 1), groups=self.n_groups)
        x2 = x2 + _pointwise(y, self.skip, None, self.n_groups)
        parts = [unflatten(part, 1, (self.n_groups, -1)) for part in (x, x1, x2)]
        return torch.cat(parts, 2).flatten(1, 2), (kept0, kept1)

    def _entered(self, inputs: Tensor) -> Tensor:
        if self.is_first:  # one picture for all streams
            padded = F.pad(inputs, (2, 2, 2, 2, 0, 0), mode="replicate")
            return F.conv3d(padded, self.enter, self.enter_biases, stride=(1, 2, 2))
        return _pointwise(inputs, self.enter, self.enter_biases, N_STREAMS)


def _pointwise(x: Tensor, weights: Tensor, biases: Tensor | None, n_groups: int) -> Tensor:
    """A convolution of 1 x 1 x 1, as one in two dimensions, which is faster."""
    flat = F.conv2d(x.flatten(2, 3), weights[..., 0], biases, groups=n_groups)
    return unflatten(flat, 2, x.shape[2:4])


def _after(frames: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
    """Frames with the two before them (zeros before the first), and the last two; the axis of time is the third."""
    if before is None:
        before = frames.new_zeros(*frames.shape[:2], 2, *frames.shape[3:])
    joined = torch.cat([before, frames], 2)
    return joined, joined[:, :, -2:].clone()


class Recurrent(nn.Module):
    """Features and modulation -> maps of the recurrent core, frame by frame.

    x = tanh(P h + from features + from modulation); z = conv([x, h]); q, k, v = linear in z, q and k of length 1, q
    times `scales`; a = softmax(q k) v over positions; i, f, o, g = linear in [z, a]; c = f c + i g; h = o tanh(c)
    """

    across: Tensor
    feature_weights: Tensor
    feature_biases: Tensor
    modulation_weights: Tensor
    convolution: Tensor
    qkv: Tensor
    scales: Tensor
    gates: Tensor
    gate_biases: Tensor
    out: Tensor
    out_biases: Tensor

    def __init__(self, tensors: Tensors, n_features: int, n_modulation: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        name, one = "core.recurrent", (1, 1, 1)
        scales = tensors.streams(f"{name}.scales", (None, None))
        self.n_groups, n_keys = int(scales.shape[1]), int(scales.shape[2])
        from_features = tensors.layer(f"{name}.proj_x.1", (None, n_features, *one))
        n_channels = from_features.n_outputs
        self.width = tensors.of_a_group(f"{name}.proj_x.1", n_channels, self.n_groups)
        convolution = tensors.layer(f"{name}.conv", (None, 2 * self.width, 1, 3, 3), gains=False, biases=False)
        n_mixed = tensors.of_a_group(f"{name}.conv", convolution.n_outputs, self.n_groups)
        modulation = tensors.layer(f"{name}.proj_x.2", (n_channels, n_modulation, *one), biases=False)
        shape = (n_keys * self.n_groups, n_mixed, *one)
        qkv = [tensors.layer(f"{name}.proj_{part}", shape, gains=False, biases=False) for part in "qkv"]
        gate_shape = (n_channels, n_mixed + n_keys, *one)
        gates, gate_biases = _side_by_side(
            [tensors.layer(f"{name}.proj_{gate}", gate_shape) for gate in "ifog"], self.n_groups
        )
        out = tensors.layer(f"{name}.out", (None, n_channels, *one))
        self.n_mixed, self.n_keys, self.n_outputs = n_mixed, n_keys, out.n_outputs
        kept = {
            "across": between_groups(tensors, f"{name}.proj_x.0", self.n_groups, self.width),
            "feature_weights": from_features.of_groups(1),
            "feature_biases": _biases(from_features),
            "modulation_weights": modulation.of_groups(1),
            "convolution": convolution.weights.flatten(0, 1)[:, :, 0],
            "qkv": torch.cat([layer.of_groups(self.n_groups) for layer in qkv], -1),
            "scales": scales.flatten(0, 1)[:, None],
            "gates": gates,
            "gate_biases": gate_biases,
            "out": out.of_groups(1),
            "out_biases": _biases(out),
        }
        for key, tensor in kept.items():
            self.register_buffer(key, tensor)

    def forward(
        self, features: Tensor, modulation: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The maps, shape (n_films, n_frames, n_positions, n_streams * n_outputs), and the state after them."""
        n_films, n_positions = features.shape[2:4]
        drive = torch.baddbmm(self.feature_biases, features.flatten(1, 3), self.feature_weights)
        drive = unflatten(drive, 1, features.shape[1:4])  # (stream, frame, film, position, channel)
        modulated = modulation.flatten(1, 2) @ self.modulation_weights
        drive = drive + unflatten(modulated, 1, modulation.shape[1:3]).transpose(1, 2)[:, :, :, None]
        if state is None:
            nothing = drive.new_zeros(N_STREAMS * self.n_groups, n_films * n_positions, self.width)
            state = nothing, nothing
        outputs, joined = [], self._joined(state[0])
        for frame in drive.unbind(1):
            state = self._step(frame.flatten(1, 2), joined, state, n_films)
            joined = self._joined(state[0])
            outputs.append(torch.baddbmm(self.out_biases, joined, self.out))
        maps = unflatten(torch.stack(outputs, 1), 2, (n_films, n_positions))
        return maps.permute(2, 1, 3, 0, 4).flatten(3), state

    def _joined(self, h: Tensor) -> Tensor:
        """Groups side by side, shape (n_streams, n, channels)."""
        return unflatten(h, 0, (N_STREAMS, -1)).transpose(1, 2).flatten(2)

    def _step(self, drive: Tensor, joined: Tensor, state: tuple[Tensor, Tensor], n_films: int) -> tuple[Tensor, Tensor]:
        h, c = state
        x = torch.baddbmm(drive, joined, self.across).tanh()
        x = unflatten(x, 2, (self.n_groups, -1)).transpose(1, 2).flatten(0, 1)
        z = self._convolved(torch.cat([x, h], -1), n_films)
        attended = self._attended(z @ self.qkv, n_films)
        gates = torch.baddbmm(self.gate_biases, z, self.gates[:, : self.n_mixed])
        gates = torch.baddbmm(gates, attended, self.gates[:, self.n_mixed :])
        return _gated(gates, c)

    def _convolved(self, x: Tensor, n_films: int) -> Tensor:
        maps = unflatten(x, 1, (n_films, *self.size)).permute(1, 0, 4, 2, 3).flatten(1, 2)
        z = F.conv2d(maps, self.convolution, padding=1, groups=len(x))
        return unflatten(z, 1, (len(x), -1)).flatten(3).permute(1, 0, 3, 2).flatten(1, 2)

    def _attended(self, qkv: Tensor, n_films: int) -> Tensor:
        by_film = unflatten(qkv, 1, (n_films, -1)).transpose(0, 1)  # (film, stream and group, position, channel)
        q, k, v = torch.split(by_film, self.n_keys, -1)
        q, k = F.normalize(q, dim=-1) * self.scales, F.normalize(k, dim=-1)
        attended = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return attended.transpose(0, 1).flatten(1, 2)
