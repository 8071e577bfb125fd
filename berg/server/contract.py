"""What the server takes and answers, as JSON: the contract between it, the page, and other programs.

======================================  ==========================================================================
``GET /api/models``                     `ModelList`: what a person needs to choose
``GET /api/models/{id}``                `ModelDescription`: what it takes, its parameters and selection, its card
``GET /api/models/{id}/accuracy``       `KnownAccuracy`: of all units, and of each region; ``?subject=1``
``POST /api/encode``                    `Answer`, or a file (npz, NetCDF)
``POST /api/jobs``                      `Job`: many stimuli, encoded to a store; also ``GET /api/jobs/{id}``
``GET /api/meshes/fsaverage5``          `Meshes`: what a cortex is drawn on
======================================  ==========================================================================

A request to ``/api/encode`` is a form (``multipart/form-data``). Its field ``request`` is JSON, an `EncodeRequest`.
Each ``stimulus`` is a file: pictures, sounds or videos in their order, or one array (``.npy``, first axis: the
stimuli); what the model takes says which. The names of the files label the responses, and are used for nothing else.

Every error has a body like ``{"error": {"type": "StimulusError", "message": "..."}}``: type and sentence are those of
`berg.core.exceptions`. 404: no such model; 413: too much; 422: something that the model does not take; 429 and 503:
come again after ``Retry-After`` seconds. With a token, each request to ``/api`` has the header
``Authorization: Bearer TOKEN``.

Responses are in C order, first axis: the stimuli. NaN is null in lists. With ``"numbers": "base64"`` they are the bytes
of little-endian float32 instead (``values_base64``), a quarter of the size.

>>> answer = Answer.model_validate(EXAMPLE)
>>> answer.outputs[0].coordinates["x_deg"].axes, answer.outputs[0].unit
(['voxel'], 'BOLD amplitude')
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from berg.core.card_schema import StimulusKind
from berg.stimuli.images import FIT

DrawingKind = Literal["visual_field", "cortex", "scalp", "rate", "time_course", "bars"]
Format = Literal["json", "npz", "nc", "arrays"]
Numbers = Literal["list", "base64"]


class Part(BaseModel):
    """A part of a request or of an answer."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ErrorFacts(Part):
    """What went wrong: a class of `berg.core.exceptions`, and its sentence."""

    type: str
    message: str


class ErrorAnswer(Part):
    """The body of every answer that is an error."""

    error: ErrorFacts


class Figure(Part):
    """One figure of how well a model does, from its card."""

    name: str
    value: Any
    description: str = ""


class ModelSummary(Part):
    """What a person needs to choose a model."""

    id: str
    modality: str
    species: str
    stimuli: str = Field(description="in words: Images")
    kind: StimulusKind | None = Field(description="what it takes: image, sound, video, text")
    architecture: str
    training_dataset: str
    is_usable: bool = Field(description="whether its files are here")
    state: str = Field(description="why, in words: built in; here: subject 1 of 8; to download (0.9 GB)")
    is_loaded: bool = Field(description="whether its weights are in memory now")
    subjects: list[Any] = Field(description="that the parameter subject takes; empty if it has none")
    regions: list[str] = Field(description="that the selection takes as roi; empty if it has none")
    drawings: list[DrawingKind] = Field(description="what its card says that can be drawn, the best first")
    accuracy: list[Figure] = Field(description="from the card; per unit: /api/models/{id}/accuracy")
    limitations: str
    licence: str


class Limits(Part):
    """How much one request may hold."""

    body_bytes: int
    stimuli: int = Field(description="of /api/encode; more than that is a job")
    pixels: int = Field(description="of one picture, or of one frame")
    frames: int = Field(description="of one video")
    seconds: float = Field(description="of one sound, or of one video")
    values: int = Field(description="numbers in one answer")


class ModelList(Part):
    """The models of this server."""

    models: list[ModelSummary]
    limits: Limits
    berg_version: str


class Input(Part):
    """What a model takes."""

    kind: StimulusKind
    shape: list[int | str] | str
    dtype: str | None
    range: tuple[float, float] | None
    unit: str | None
    sampling_rate: int | None
    n_frames: int | None
    description: str
    constraints: list[str]
    endings: list[str] = Field(description="of files, such as .png")


class OutputFacts(Part):
    """One output of a model, from its card."""

    name: str
    axes: list[str] = Field(description="the first is stimulus")
    unit: str


class Setting(Part):
    """A parameter, or a key of the selection."""

    type: str
    required: bool
    default: Any
    allowed: list[Any] | None
    minimum: float | None
    maximum: float | None
    unit: str | None
    example: Any
    description: str


class ModelDescription(ModelSummary):
    """A model: the summary, and what stands in its card."""

    description: str
    citation: str
    references: list[Any]
    creator: str
    input: Input | None
    outputs: list[OutputFacts]
    parameters: dict[str, Setting]
    selection: dict[str, Setting]
    card: dict[str, Any] = Field(description="the keys of the card as they stand")


class RegionAccuracy(Part):
    """How well the units of a region are predicted."""

    name: str
    n_units: int
    median: float | None


class KnownAccuracy(Part):
    """How well a model predicts data that its fit has not seen; null where nobody knows."""

    quantity: str | None = Field(description="held_out_r, r, ...: a correlation unless it says otherwise")
    median: float | None
    n_units: int
    regions: list[RegionAccuracy]
    attributes: dict[str, Any] = Field(description="what was compared with what")


class EncodeRequest(Part):
    """The field ``request`` of the form.

    ``size`` and ``fit`` are how pictures in files are brought to one size, as in `berg.BERG.encode`.
    """

    model: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    selection: dict[str, Any] | None = None
    size: int | None = None
    fit: FIT | None = None
    sampling_rate: int | None = Field(default=None, description="of sounds in an array, hertz")
    names: list[str] | None = Field(
        default=None, description="of the stimuli; by default those of the files, or numbers"
    )
    format: Format = "json"
    numbers: Numbers = "list"
    drawings: bool = Field(default=True, description="whether to add what is drawn (JSON alone)")
    coordinates: Literal["all", "drawn"] = Field(
        default="all", description="of units; drawn: no more than drawings need"
    )


class Coordinate(Part):
    """Labels along one axis of an output, or along several: one value for each place, in C order."""

    axes: list[str]
    values: list[Any]
    unit: str | None = Field(description="deg, s, ...; null if it has none, or nobody says")


class Output(Part):
    """The responses of one output, with what is known of each unit.

    ``coordinates`` always have ``stimulus`` (the names), and those of the card: ``roi`` (several regions with
    semicolons between), ``x_deg``, ``y_deg``, ``size_deg``, ``vertex``, ``channel``, ``time`` (seconds), ...
    ``noise_ceiling`` and ``accuracy`` are copies of the coordinates that hold them, null if none does.
    """

    name: str
    quantity: str = Field(description="response, firing rate: what a colour bar says before the unit")
    unit: str = Field(description="as in the card and in files: V, z-scored beta, spikes/s")
    shown_unit: str = Field(description="as one draws it: µV, fT")
    shown_factor: float = Field(description="values * shown_factor are in shown_unit")
    is_signed: bool = Field(description="whether the colour scale is symmetric about 0")
    axes: list[str]
    shape: list[int]
    values: list[float | None] | None = Field(description="in C order; null with numbers: base64")
    values_base64: str | None = Field(None, description="little-endian float32, in C order")
    coordinates: dict[str, Coordinate]
    noise_ceiling: Coordinate | None = Field(description="unit: r, or null: then it is not to be drawn beside r")
    accuracy: Coordinate | None
    accuracy_quantity: str | None
    attributes: dict[str, Any]


class Region(Part):
    """A bar: the mean over the units of a region, of all outputs together."""

    name: str
    n_units: int
    mean: list[float | None] = Field(description="one value per stimulus, in the unit of the outputs")
    accuracy: float | None = Field(description="mean correlation on held-out data")
    ceiling: float | None = Field(description="mean noise ceiling, a correlation")


class Hemisphere(Part):
    """Responses of one hemisphere on the vertices of the mesh, shape (n_stimuli, n_vertices) in C order."""

    values: list[float | None] | None = Field(description="null where nothing was predicted; null with base64")
    values_base64: str | None = None
    shape: list[int]


class Drawing(Part):
    """What one drawing needs beside the outputs; fields that a kind does not need are null.

    ============  =======================================================================================
    kind          what is drawn
    ============  =======================================================================================
    visual_field  a dot per unit of ``output`` at the coordinates ``x_deg``, ``y_deg`` (degrees, right and
                  up positive), as large as ``size_deg``; the picture is ``width_deg`` wide around (0, 0)
    cortex        ``hemispheres`` (lh, rh) on the mesh of ``/api/meshes/{mesh}``
    scalp         per channel of ``output`` its place ``x``, ``y`` on a head of radius 1 seen from above,
                  nose up (null: unknown); ``time`` is a coordinate in seconds; take the mean over the
                  axis ``repetition`` if there is one
    rate          one line per unit of ``output`` against its coordinate ``time``
    time_course   the same, of sensors whose place is unknown
    bars          ``regions``
    ============  =======================================================================================
    """

    kind: DrawingKind
    output: str | None = None
    width_deg: float | None = None
    mesh: str | None = None
    hemispheres: dict[str, Hemisphere] | None = None
    x: list[float | None] | None = None
    y: list[float | None] | None = None
    regions: list[Region] | None = None
    note: str = Field(default="", description="a sentence for the line below")


class Answer(Part):
    """The responses of a model to stimuli."""

    model: dict[str, Any] = Field(description="model_id, subject, selection, licence, citation, weights_sha256, ...")
    stimuli: list[str | int | float]
    outputs: list[Output]
    drawings: list[Drawing] = Field(description="the best first")
    warnings: list[str] = Field(description="sentences to show, such as: the pictures have few pixels per degree")
    python: str = Field(description="the lines that give the same responses in Python")


class Mesh(Part):
    """One hemisphere. Arrays as base64: float32 points (n, 3) or (n, 2), int32 faces (n, 3), float32 sulci (n,)."""

    n_vertices: int
    n_faces: int
    inflated_base64: str
    faces_base64: str
    sulci_base64: str | None
    flat_base64: str | None
    n_flat_faces: int
    flat_faces_base64: str | None


class Meshes(Part):
    """The two hemispheres: lh, rh."""

    name: str
    hemispheres: dict[str, Mesh]


class Job(Part):
    """Many stimuli, encoded to a store on the server's disk.

    ``state``: waiting, running, done, failed, cancelled (resume goes on), interrupted (the server ended; resume goes
    on). ``DELETE /api/jobs/{id}`` takes away stimuli and responses.
    """

    id: str
    state: Literal["waiting", "running", "done", "failed", "cancelled", "interrupted"]
    model: str
    n_stimuli: int
    n_done: int
    error: ErrorFacts | None
    warnings: list[str]
    result: str | None = Field(description="where the store is, as a zip file: /api/jobs/{id}/result")


EXAMPLE: dict[str, Any] = {
    "model": {"model_id": "fmri-szinte2024-prf_css", "subject": 1, "selection": "{'voxels': ...}"},
    "stimuli": ["face.png"],
    "outputs": [
        {
            "name": "responses",
            "quantity": "response",
            "unit": "BOLD amplitude",
            "shown_unit": "BOLD amplitude",
            "shown_factor": 1.0,
            "is_signed": False,
            "axes": ["stimulus", "voxel"],
            "shape": [1, 2],
            "values": [0.5, None],
            "coordinates": {
                "stimulus": {"axes": ["stimulus"], "values": ["face.png"], "unit": None},
                "voxel": {"axes": ["voxel"], "values": [0, 7], "unit": None},
                "roi": {"axes": ["voxel"], "values": ["V1", "V1"], "unit": None},
                "x_deg": {"axes": ["voxel"], "values": [4.5, -2.0], "unit": "deg"},
                "y_deg": {"axes": ["voxel"], "values": [-1.9, 3.0], "unit": "deg"},
                "size_deg": {"axes": ["voxel"], "values": [0.5, 0.6], "unit": "deg"},
                "held_out_r": {"axes": ["voxel"], "values": [0.8, 0.7], "unit": None},
            },
            "noise_ceiling": None,
            "accuracy": {"axes": ["voxel"], "values": [0.8, 0.7], "unit": None},
            "accuracy_quantity": "held_out_r",
            "attributes": {"voxel_total": 2308},
        }
    ],
    "drawings": [{"kind": "visual_field", "output": "responses", "width_deg": 10.0}],
    "warnings": [],
    "python": 'responses = berg.BERG().encode("fmri-szinte2024-prf_css", ["face.png"], labelled=True)',
}
"""An answer to one picture, of two voxels."""
