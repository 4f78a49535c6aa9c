"""The routes of the API, each returning a model of `responses`."""

import time
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from math import prod
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response
from torch import Tensor

from alexnet import __version__
from alexnet.errors import ConfigError, did_you_mean
from alexnet.evaluation import rank_classes
from alexnet.explain import METHODS
from alexnet.explain.attribution import find_class
from alexnet.features import last_hidden
from alexnet.predictor import Prediction, Switches
from alexnet.serve import responses
from alexnet.serve.admission import HTTPError
from alexnet.serve.images import (
    GRID,
    OcclusionGrid,
    draw_maps,
    encode_jpeg_uri,
    round_digits,
    tile_filters,
)
from alexnet.serve.service import Model, Service

MAX_FEATURES = 1_000_000  # numbers in an answer of /v1/features: about 20 MB of JSON
COST = 8  # forwards that an explanation takes of the queue's room, about

BINARY = {"type": "string", "format": "binary"}
FORM = {
    "type": "object",
    "properties": {"image": {"type": "array", "items": BINARY, "minItems": 1}},
    "required": ["image"],
}
IMAGES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One or many images as multipart/form-data, or the bytes of one.",
        "content": {
            "multipart/form-data": {"schema": FORM},
            "application/octet-stream": {"schema": BINARY},
        },
    }
}
Documented = dict[int | str, dict[str, Any]]  # answers of a route, by status
ERRORS: Documented = {
    status: {"model": responses.ErrorResponse, "description": text}
    for status, text in {
        400: "No image, or a form that cannot be read.",
        401: "No token, or a wrong one.",
        403: "A page of another origin asked.",
        404: "There is no such thing.",
        408: "The body came too slowly.",
        413: "Too many bytes, pixels or images.",
        415: "Not an image of a format that is read.",
        421: "A host name that this server does not answer to.",
        422: "A setting that cannot be, or a damaged image.",
        503: "Too busy, or not ready yet; Retry-After says when.",
    }.items()
}
GET_ERRORS: Documented = {status: ERRORS[status] for status in (401, 404, 421, 422, 503)}
TEXT: Documented = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
JPEG: Documented = {200: {"content": {"image/jpeg": {}}}}

router = APIRouter()
post = partial(router.post, responses=ERRORS, openapi_extra=IMAGES)
get = partial(router.get, responses=GET_ERRORS)
OnOff = Literal["on", "off"]


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _model(service: "Serving") -> Model:
    return service.model


async def _switches(
    lrn: OnOff = "on", dropout_scale: OnOff = "on", mirror: OnOff = "off"
) -> Switches:
    """Read the switches of a request; `async`, or FastAPI would hand it to a thread."""
    return Switches(lrn == "on", dropout_scale == "on", mirror == "on")


Serving = Annotated[Service, Depends(_service)]
Served = Annotated[Model, Depends(_model)]
Switched = Annotated[Switches, Depends(_switches)]
LayerName = Annotated[str, Query(description="The name of an output: `outputs` of /v1/model.")]


@post("/v1/predict", tags=["predict"])
async def predict(
    request: Request,
    service: Serving,
    served: Served,
    switches: Switched,
    top: Annotated[int, Query(ge=1, le=1000)] = 5,
    views: Literal["1", "10"] = "1",
) -> responses.Predictions:
    """Rank the classes for each image."""
    photographs = await service.read_photographs(request)
    start = time.perf_counter()
    function = served.networks.probabilities(switches, int(views))
    found = await service.run_network(function, [one.pixels for one in photographs], int(views))
    elapsed = time.perf_counter() - start
    image_size = served.predictor.spec.image_size
    return responses.Predictions(
        predictions=[_rank(served, probabilities, top) for probabilities in found],
        crops=[one.describe_crop(image_size, int(views)) for one in photographs],
        milliseconds=round(1000 * elapsed, 2),
    )


@post("/v1/features", tags=["predict"])
async def features(
    request: Request,
    service: Serving,
    served: Served,
    switches: Switched,
    layers: Annotated[str, Query(description="Names of outputs, divided by commas.")] = "",
) -> responses.Features:
    """Return the outputs of layers for each image's centre view; by default the last one's."""
    networks = served.networks
    names = tuple(dict.fromkeys(layers.split(","))) if layers else tuple(networks.shapes)[-1:]
    for name in names:
        networks.check(name)
    photographs = await service.read_photographs(request)
    size = len(photographs) * sum(prod(networks.shapes[name]) for name in names)
    if size > MAX_FEATURES:
        fix = f"Ask for at most {MAX_FEATURES:,}: fewer images, or later layers."
        raise HTTPError(413, f"The answer would have {size:,} numbers.", fix)
    start = time.perf_counter()
    function = networks.activations(switches, names)
    found = await service.run_network(function, [one.pixels for one in photographs])
    elapsed = time.perf_counter() - start

    def listed() -> responses.Features:
        outputs = [
            {
                name: responses.Output(shape=list(out.shape), values=out.flatten().tolist())
                for name, out in one.items()
            }
            for one in found
        ]
        return responses.Features(features=outputs, milliseconds=round(1000 * elapsed, 2))

    return await service.run_aside(listed)


@post("/v1/maps", tags=["look"])
async def maps(
    request: Request, service: Serving, served: Served, layer: LayerName, switches: Switched
) -> responses.Maps:
    """Draw a layer's feature maps for an image."""
    served.networks.check(layer)
    (photograph, *_) = await service.read_photographs(request)
    function = served.networks.activations(switches, (layer,))
    (found,) = await service.run_network(function, [photograph.pixels])
    return await service.run_aside(draw_maps, layer, found[layer])


@post("/v1/occlusion", tags=["look"])
async def occlusion(
    request: Request,
    service: Serving,
    served: Served,
    switches: Switched,
    label: Annotated[str, Query(description="A class; by default the most probable.")] = "",
) -> responses.Occlusion:
    """Return how probable a class stays as a grey square covers each part of the view."""
    predictor = served.predictor
    (photograph, *_) = await service.read_photographs(request)
    function = served.networks.probabilities(switches, 1)
    (whole,) = await service.run_network(function, [photograph.pixels])
    number = _class_number(served, label) if label else int(whole.argmax())
    grid = OcclusionGrid.over(len(photograph.pixels), predictor.spec.image_size)
    covered = await service.run_aside(grid.cover, photograph.pixels, served.networks.mean_colour)
    rows: list[list[float]] = []
    for start in range(0, len(covered), GRID):  # a row at a time: others get their turn between
        row: list[Tensor] = await service.run_network(function, covered[start : start + GRID])
        rows.append([round(float(probabilities[number]), 6) for probabilities in row])
    edge = grid.offset + grid.view
    return responses.Occlusion(
        class_name=served.networks.class_names[number],
        label=predictor.classes[number],
        probability=round(float(whole[number]), 6),
        grid=rows,
        size=grid.size,
        stride=grid.stride,
        view=grid.view,
        box=photograph.box(grid.offset, grid.offset, edge, edge),
    )


@post("/v1/explain", tags=["look"])
async def explain(
    request: Request,
    service: Serving,
    served: Served,
    switches: Switched,
    method: Annotated[str, Query(description="One of `methods` of /v1/model.")] = "grad-cam",
    label: Annotated[str, Query(description="A class; by default the most probable.")] = "",
) -> responses.Attribution:
    """Return which pixels of an image speak for a class."""
    if method not in METHODS:
        raise HTTPError(404, f"No method is called {method!r}.", did_you_mean(method, METHODS))
    predictor = served.predictor
    (photograph, *_) = await service.read_photographs(request)
    start = time.perf_counter()
    function = served.networks.probabilities(switches, 1)
    (chances,) = await service.run_network(function, [photograph.pixels])
    number = _class_number(served, label) if label else int(chances.argmax())
    explaining = served.networks.attributions(switches, method, number)
    (found,) = await service.run_network(explaining, [photograph.pixels], COST)
    view, side = predictor.view, predictor.spec.image_size
    return responses.Attribution(
        method=method,
        class_name=served.networks.class_names[number],
        label=predictor.classes[number],
        probability=round(float(chances[number]), 6),
        grid=[list(map(round_digits, row)) for row in found.tolist()],
        size=-(-side // len(found)),
        view=side,
        box=photograph.box(view.start, view.start, view.stop, view.stop),
        milliseconds=round(1000 * (time.perf_counter() - start), 2),
    )


@post("/v1/neighbours", tags=["look"])
async def neighbours(request: Request, service: Serving, served: Served) -> responses.NearestImages:
    """Return the six training images nearest to an image in the last hidden layer."""
    served.gallery.require_found()  # before an upload is decoded for it
    (photograph, *_) = await service.read_photographs(request)
    hidden = last_hidden(served.predictor.spec)
    function = served.networks.activations(Switches(), (hidden,))
    (found,) = await service.run_network(function, [photograph.pixels])
    return await service.run_aside(served.gallery.find_nearest, found[hidden])


@get("/v1/filters", tags=["look"])
async def filters(
    service: Serving, served: Served, layer: str = "conv1", unit: int | None = None
) -> responses.Filters:
    """Draw a convolution's filters: all of the first, those of one unit of another."""
    weight, is_coloured = await service.read(served.networks.get_filters, layer)
    if is_coloured:
        unit = None
    else:
        unit = unit or 0
        served.networks.check(layer, unit)
    return await service.read(tile_filters, layer, weight, unit)


@get("/v1/exciting", tags=["look"])
async def exciting(
    service: Serving, served: Served, layer: LayerName, unit: Annotated[int, Query(ge=0)]
) -> responses.TopPatches:
    """Return the patches of training images that excite a unit most."""
    return await service.read(served.gallery.find_top_patches, layer, unit)


@get("/v1/optimised", tags=["look"])
async def optimised(
    service: Serving, served: Served, layer: LayerName, unit: Annotated[int, Query(ge=0)]
) -> responses.OptimisedUnit:
    """Return an image made to excite a unit most; it takes some seconds, one at a time."""
    served.networks.check(layer, unit)
    found = await service.optimise(served, layer, unit)
    return responses.OptimisedUnit(
        layer=layer, unit=unit, image=encode_jpeg_uri(found.images[0]), activation=found.scores[0]
    )


@get("/v1/example", tags=["look"], response_class=Response, responses=GET_ERRORS | JPEG)
async def example(
    service: Serving, served: Served, number: Annotated[int, Query(ge=0)] = 0
) -> Response:
    """Return a held-out image, for who has no photograph at hand; any number names one."""
    found = await service.read(served.gallery.encode_example, number)
    return Response(found, media_type="image/jpeg")


@get("/v1/model", tags=["about"])
async def model(service: Serving, served: Served) -> responses.ModelInfo:
    """Return what is served: the network, its layers and their arithmetic, its classes."""
    predictor, networks, settings = served.predictor, served.networks, service.admission.settings
    spec = predictor.spec
    return responses.ModelInfo(
        name=spec.name,
        step=predictor.step,
        classes=responses.Classes(
            count=len(predictor.classes),
            names=list(networks.class_names),
            labels=list(predictor.classes),
        ),
        spec=asdict(spec),
        layers=[responses.LayerRow.model_validate(layer) for layer in spec.layers()],
        towers=spec.towers,
        prepared=predictor.resize_to,
        parameters=spec.parameters,
        neurons=spec.neurons,
        macs=spec.macs,
        outputs=list(networks.shapes),
        shapes={name: list(shape) for name, shape in networks.shapes.items()},
        receptive_fields={
            name: responses.ReceptiveField.model_validate(field)
            for name, field in networks.fields.items()
        },
        methods=list(METHODS) if find_spec("captum") else [],
        has_training_images=served.gallery.has_images,
        has_run_curves=(service.run.folder / "metrics.jsonl").is_file(),
        limits={
            name: getattr(settings, name) for name in ("max_bytes", "max_pixels", "max_images")
        },
        version=__version__,
    )


@get("/v1/run", tags=["about"], response_model=responses.RunCurves)
async def run(service: Serving, after: Annotated[int, Query(ge=-1)] = -1) -> Response:
    """Return the run's measurements after a step; ask again with the last step to follow it."""
    found = await service.read(service.curves.render, after)
    return Response(found, media_type="application/json")


@get("/healthz", tags=["about"])
async def healthz() -> responses.Health:
    """Say that the process answers."""
    return responses.Health(status="alive")


@get("/readyz", tags=["about"])
async def readyz(service: Serving) -> responses.Health:
    """Say whether the server takes images: 503 while it is full, unwell or about to end."""
    service.admission.check_health(await service.find_fault())
    return responses.Health(status="ready")


@get("/metrics", tags=["about"], response_class=Response, responses=GET_ERRORS | TEXT)
async def metrics(service: Serving) -> Response:
    """Return what this process counted, in Prometheus' text format."""
    return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _rank(served: Model, probabilities: Tensor, top: int) -> list[Prediction]:
    chances, numbers = rank_classes(probabilities)
    return [
        Prediction(served.networks.class_names[number], chance, served.predictor.classes[number])
        for chance, number in zip(chances.tolist()[:top], numbers.tolist(), strict=False)
    ]


def _class_number(served: Model, label: str) -> int:
    """Return the number of a class, named as the data or as the page names it; else 404."""
    try:
        return find_class(served.predictor, label)
    except ConfigError as error:
        raise HTTPError(404, error.what, error.fix) from None
