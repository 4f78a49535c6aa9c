"""Routes for programs: predictions and features of one image or many."""

import time
from math import prod
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import JSONResponse

from alexnet.data.augment import crop_offsets
from alexnet.data.imagenet import describe_classes
from alexnet.serve.answers import ErrorAnswer, Features, OnOff, Predictions
from alexnet.serve.networks import Switches
from alexnet.serve.pictures import Picture
from alexnet.serve.refusals import Refusal
from alexnet.serve.service import Service

MAX_VALUES = 1_000_000  # numbers in an answer of /v1/features: about 20 MB of JSON

IMAGES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One or many images as multipart/form-data, or the bytes of one.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "minItems": 1,
                        }
                    },
                    "required": ["image"],
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": text}
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
REFUSED_GET: dict[int | str, dict[str, Any]] = {
    status: answer for status, answer in REFUSED.items() if status in (401, 404, 421, 422, 503)
}


async def switches(
    lrn: OnOff = "on", dropout_scale: OnOff = "on", mirror: OnOff = "off"
) -> Switches:
    """Read the switches of a request; `async`, or FastAPI would hand it to a thread."""
    return Switches(lrn == "on", dropout_scale == "on", mirror == "on")


Switched = Annotated[Switches, Depends(switches)]


def predict_routes(service: Service) -> APIRouter:
    """Return the routes of predictions and features."""
    router = APIRouter(tags=["predict"], responses=REFUSED)
    model = service.model
    names = describe_classes(model.classes)

    @router.post("/v1/predict", response_model=None, openapi_extra=IMAGES,
                 responses={200: {"model": Predictions}})  # fmt: skip
    async def predict(
        request: Request,
        switched: Switched,
        top: Annotated[int, Query(ge=1, le=1000)] = 5,
        views: Literal["1", "10"] = "1",
    ) -> JSONResponse:
        """Rank the classes for each image."""
        pictures = await service.pictures(request)
        start = time.perf_counter()
        work = service.networks.probabilities(switched, int(views))
        found = await service.ask(work, [picture.pixels for picture in pictures], int(views))
        elapsed = time.perf_counter() - start
        ranked = []
        for probabilities in found:
            chances, labels = probabilities.sort(descending=True)
            ranked.append([
                {"name": names[label], "label": model.classes[label], "probability": chance}
                for chance, label in zip(chances.tolist()[:top], labels.tolist(), strict=False)
            ])  # fmt: skip
        return JSONResponse({
            "predictions": ranked,
            "crops": [crop(picture, model.spec.image_size, int(views)) for picture in pictures],
            "milliseconds": round(1000 * elapsed, 2),
        })  # fmt: skip

    @router.post("/v1/features", response_model=None, openapi_extra=IMAGES,
                 responses={200: {"model": Features}})  # fmt: skip
    async def features(
        request: Request,
        switched: Switched,
        layers: Annotated[str, Query(description="Names of outputs, divided by commas.")] = "",
    ) -> JSONResponse:
        """Return the outputs of layers for each image's centre view; by default the last one's."""
        asked = tuple(dict.fromkeys(layers.split(","))) if layers else (model.spec.output_name,)
        for name in asked:
            service.networks.check(name)
        pictures = await service.pictures(request)
        shapes = service.networks.shapes
        size = len(pictures) * sum(prod(shapes[name]) for name in asked)
        if size > MAX_VALUES:
            raise Refusal(
                413, f"The answer would have {size:,} numbers.",
                f"Ask for at most {MAX_VALUES:,}: fewer images, or later layers.",
            )  # fmt: skip
        start = time.perf_counter()
        work = service.networks.activations(switched, asked)
        found = await service.ask(work, [picture.pixels for picture in pictures])
        elapsed = time.perf_counter() - start

        def written() -> JSONResponse:
            listed = [
                {
                    name: {"shape": list(out.shape), "values": out.flatten().tolist()}
                    for name, out in one.items()
                }
                for one in found
            ]
            return JSONResponse({"features": listed, "milliseconds": round(1000 * elapsed, 2)})

        return await service.aside(written)

    return router


def crop(picture: Picture, size: int, views: int) -> dict[str, Any]:
    """Return what of a photograph the network saw; the boxes are in the photograph's pixels."""
    prepared = len(picture.pixels)
    boxes = [
        picture.box(left, top, left + size, top + size)
        for top, left in crop_offsets(prepared, size, views)
    ]
    return {
        "width": picture.width,
        "height": picture.height,
        "square": picture.box(0, 0, prepared, prepared),
        "view": boxes[0],
        "views": [box for box in boxes for _ in range(2 if views == 10 else 1)],
    }
