"""What the API answers with: the routes return these, and the description is made of them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from alexnet.predictor import Prediction

Box = Annotated[list[float], Field(min_length=4, max_length=4)]  # left, top, right, bottom
Metrics = Mapping[str, int | float | None]  # a line of ``metrics.jsonl``
ClassName = Annotated[str, Field(serialization_alias="class")]


class ErrorDetail(BaseModel):
    """Why a request was refused."""

    reason: str = Field(description="What happened; a sentence.")
    fix: str = Field(description="What to do about it; a sentence, or nothing.")
    request_id: str = Field(description="As in the header X-Request-ID and in the server's log.")


class ErrorResponse(BaseModel):
    """The answer to every request that is refused."""

    error: ErrorDetail


class Crop(BaseModel):
    """What the network saw: left, top, right, bottom, in the photograph's pixels."""

    width: int
    height: int
    square: Box = Field(description="The central square, which is scaled to the prepared size.")
    view: Box = Field(description="The centre view.")
    views: list[Box] = Field(description="Every view; a mirrored one repeats its box.")


class Predictions(BaseModel):
    """The most probable classes of each image, the most probable first."""

    predictions: list[list[Prediction]]
    crops: list[Crop] = Field(description="One an image.")
    milliseconds: float = Field(description="From the decoded images on, waiting included.")


class Output(BaseModel):
    """A layer's output for one image."""

    shape: list[int] = Field(description="(maps, height, width), or (units,).")
    values: list[float] = Field(description="In the order of the shape, the last index fastest.")


class Features(BaseModel):
    """The outputs of the asked layers, by name, for each image."""

    features: list[dict[str, Output]]
    milliseconds: float


class LayerRow(BaseModel):
    """A line of the network's arithmetic, as `alexnet summary` prints it."""

    model_config = ConfigDict(from_attributes=True)  # of a `spec.Layer`

    name: str
    kind: Literal["input", "conv", "pool", "dense"]
    channels: int
    size: int
    parameters: int
    macs: int
    outputs: int
    arithmetic: str


class ReceptiveField(BaseModel):
    """Which part of the input a unit of a layer sees."""

    model_config = ConfigDict(from_attributes=True)  # of a `features.ReceptiveField`

    size: int = Field(description="Pixels on a side.")
    stride: int = Field(description="Pixels from one unit to the next.")
    start: int = Field(description="Left edge of the first unit's, in pixels; may be negative.")


class Classes(BaseModel):
    """The classes the network tells apart."""

    count: int
    names: list[str]
    labels: list[str]


class ModelInfo(BaseModel):
    """What the server serves."""

    name: str
    step: int = Field(description="Of the checkpoint: it rises where a training is followed.")
    classes: Classes
    spec: dict[str, Any]
    layers: list[LayerRow]
    towers: int
    prepared: int = Field(description="Side of the square that views are cut from, in pixels.")
    parameters: int
    neurons: int
    macs: int
    outputs: list[str] = Field(description="Names for `layer` and `layers`, first to last.")
    shapes: dict[str, list[int]] = Field(description="(maps, side, side) or (units,) of each.")
    receptive_fields: dict[str, ReceptiveField]
    methods: list[str] = Field(description="For `method` of /v1/explain; none without Captum.")
    has_training_images: bool
    has_run_curves: bool
    limits: dict[str, int]
    version: str


class Maps(BaseModel):
    """A layer's output for an image, drawn: one tile a map, white the layer's largest value."""

    layer: str
    maps: int
    size: int = Field(description="Of a tile, in pixels.")
    columns: int = Field(description="Tiles in a row of the image.")
    image: str = Field(description="A PNG as a data: address.")
    means: list[float]
    largest: list[float]


class Filters(BaseModel):
    """A layer's weights, drawn: grey is zero, or colours where the layer sees the pixels."""

    layer: str
    unit: int | None
    filters: int
    size: int
    columns: int
    image: str
    scale: float = Field(description="The weight that is drawn white; black is its negative.")


class Patch(BaseModel):
    """A part of a training image that excites a unit."""

    image: str
    class_name: ClassName
    activation: float
    box: Box = Field(description="In the prepared image's pixels.")


class TopPatches(BaseModel):
    """The patches that excite a unit most, the strongest first."""

    layer: str
    unit: int
    patches: list[Patch]
    images: int = Field(description="Training images that were looked at.")


class OptimisedUnit(BaseModel):
    """An image that was made to excite a unit most."""

    layer: str
    unit: int
    image: str = Field(description="A JPEG as a data: address.")
    activation: float = Field(description="Of the unit in the middle of its map.")


class Neighbour(BaseModel):
    """A training image, and its Euclidean distance in the last hidden layer."""

    image: str
    class_name: ClassName
    distance: float


class NearestImages(BaseModel):
    """The nearest training images."""

    layer: str
    neighbours: list[Neighbour]
    images: int


class ClassGrid(BaseModel):
    """Numbers over the view, of a class: rows from the top, columns from the left."""

    class_name: ClassName
    label: str
    probability: float = Field(description="Of the photograph as it is.")
    grid: list[list[float]]
    size: int = Field(description="Side of a grey square, or of a cell, in the view's pixels.")
    view: int = Field(description="Side of the view.")
    box: Box = Field(description="The view in the photograph's pixels.")


class Occlusion(ClassGrid):
    """How probable a class stays as a grey square covers each part of the view."""

    stride: int


class Attribution(ClassGrid):
    """How much each part of the view speaks for a class, by one method; below 0, against it."""

    method: str
    milliseconds: float


class RunCurves(BaseModel):
    """A run's measurements, and whether it goes on."""

    lines: Sequence[Metrics]
    step: int
    epochs: int | float = Field(description="That the run was asked to train.")
    best: Metrics | None = Field(description="The validation with the best top-1.")
    images_per_second: float | None
    live: bool = Field(description="Whether a process is training the run now.")


class Health(BaseModel):
    """Whether the server lives, or is ready."""

    status: str
