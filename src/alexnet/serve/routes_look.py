"""Routes of the page: what the network sees in a photograph, and what it has learned to see."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response
from torch import Tensor

from alexnet.data.imagenet import describe_classes
from alexnet.errors import did_you_mean
from alexnet.features import last_hidden
from alexnet.serve.answers import Exciting, Filters, Maps, Neighbours, Occlusion
from alexnet.serve.drawings import drawn_filters, drawn_maps
from alexnet.serve.networks import Switches
from alexnet.serve.occlusion import CHUNK, Squares, rows
from alexnet.serve.refusals import Refusal
from alexnet.serve.routes_predict import IMAGES, REFUSED, Switched
from alexnet.serve.service import Service

Layer = Annotated[str, Query(description="The name of an output: `outputs` of /v1/model.")]


def look_routes(service: Service) -> APIRouter:
    """Return the routes of the page's panels."""
    router = APIRouter(tags=["look"], responses=REFUSED)
    networks = service.networks
    names = describe_classes(service.model.classes)

    def answer(model: Any) -> dict[str, Any]:
        return {"response_model": None, "responses": {200: {"model": model}}}

    @router.post("/v1/maps", openapi_extra=IMAGES, **answer(Maps))
    async def maps(request: Request, layer: Layer, switched: Switched) -> JSONResponse:
        """Draw a layer's feature maps for an image."""
        networks.check(layer)
        picture = await service.picture(request)
        work = networks.activations(switched, (layer,))
        (found,) = await service.ask(work, [picture.pixels])
        return JSONResponse(await service.aside(drawn_maps, layer, found[layer]))

    @router.get("/v1/filters", **answer(Filters))
    async def filters(layer: str = "conv1", unit: int | None = None) -> JSONResponse:
        """Draw a convolution's filters: all of the first, those of one unit of another."""
        return JSONResponse(await service.aside(drawn_filters, networks, layer, unit))

    @router.get("/v1/exciting", **answer(Exciting))
    async def exciting(layer: Layer, unit: Annotated[int, Query(ge=0)]) -> JSONResponse:
        """Return the patches of training images that excite a unit most."""
        return JSONResponse(await service.aside(service.gallery.exciting, layer, unit))

    @router.get("/v1/example", response_class=Response,
                responses={200: {"content": {"image/jpeg": {}}}})  # fmt: skip
    async def example(number: Annotated[int, Query(ge=0)] = 0) -> Response:
        """Return a held-out image, for who has no photograph at hand; any number names one."""
        found = await service.aside(service.gallery.example, number)
        return Response(found, media_type="image/jpeg")

    @router.post("/v1/neighbours", openapi_extra=IMAGES, **answer(Neighbours))
    async def neighbours(request: Request) -> JSONResponse:
        """Return the six training images nearest to an image in the last hidden layer."""
        service.gallery.check()
        picture = await service.picture(request)
        hidden = last_hidden(service.model.spec)
        work = networks.activations(Switches(), (hidden,))
        (found,) = await service.ask(work, [picture.pixels])
        return JSONResponse(await service.aside(service.gallery.nearest, found[hidden]))

    @router.post("/v1/occlusion", openapi_extra=IMAGES, **answer(Occlusion))
    async def occlusion(
        request: Request, switched: Switched,
        label: Annotated[str, Query(description="A class; by default the most probable.")] = "",
    ) -> JSONResponse:  # fmt: skip
        """Return how probable a class stays as a grey square covers each part of the view."""
        picture = await service.picture(request)
        work = networks.probabilities(switched, 1)
        (whole,) = await service.ask(work, [picture.pixels])
        number = class_number(service, label) if label else int(whole.argmax())
        squares = Squares.over(service.model.resize_to, service.model.spec.image_size)
        covered = await service.aside(squares.covered, picture.pixels, networks.mean_colour)
        found: list[Tensor] = []
        for start in range(0, len(covered), CHUNK):
            found += await service.ask(work, covered[start : start + CHUNK])
        edge = squares.offset + squares.view
        return JSONResponse({
            "class": names[number],
            "label": service.model.classes[number],
            "probability": round(float(whole[number]), 6),
            "grid": rows(found, number),
            "size": squares.size,
            "stride": squares.stride,
            "view": squares.view,
            "box": picture.box(squares.offset, squares.offset, edge, edge),
        })  # fmt: skip

    return router


def class_number(service: Service, label: str) -> int:
    """Return the place of a class, named as the data or as the page names it.

    Raises
    ------
    Refusal
        404 where there is none.
    """
    for names in (service.model.classes, describe_classes(service.model.classes)):
        if label in names:
            return names.index(label)
    raise Refusal(404, f"There is no class {label!r}.", did_you_mean(label, service.model.classes))
