"""Routes about the server itself: the model, the run's curves, health, the page."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from alexnet.serve.about import about
from alexnet.serve.answers import About, Health, RunCurves
from alexnet.serve.curves import curves
from alexnet.serve.refusals import Refusal, busy
from alexnet.serve.routes_predict import REFUSED_GET
from alexnet.serve.service import Service

PAGE = Path(__file__).parent / "page"


def about_routes(service: Service) -> APIRouter:
    """Return the routes that take no image."""
    router = APIRouter(tags=["about"], responses=REFUSED_GET)

    @router.get("/v1/model", response_model=None, responses={200: {"model": About}})
    async def model() -> JSONResponse:
        """Return what is served: the network, its layers and their arithmetic, its classes."""
        return JSONResponse(about(service))

    @router.get("/v1/run", response_model=None, responses={200: {"model": RunCurves}})
    async def run(after: Annotated[int, Query(ge=-1)] = -1) -> JSONResponse:
        """Return the run's measurements after a step; ask again with the last step to follow it."""
        return JSONResponse(await service.aside(curves, service.run, after))

    @router.get("/healthz", response_model=None, responses={200: {"model": Health}})
    async def healthz() -> JSONResponse:
        """Say that the process answers."""
        return JSONResponse({"status": "alive"})

    @router.get("/readyz", response_model=None, responses={200: {"model": Health}})
    async def readyz() -> JSONResponse:
        """Say whether the server takes images: 503 while its queue is full."""
        if service.engine.waiting >= service.settings.max_waiting:
            raise busy("The server has as many images waiting as it can answer in time.")
        return JSONResponse({"status": "ready"})

    text = {"content": {"text/plain": {"schema": {"type": "string"}}}}

    @router.get("/metrics", response_class=Response, response_model=None, responses={200: text})
    async def metrics() -> Response:
        """Return what this process counted, in Prometheus' text format."""
        return Response(service.measures.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def add_page(app: FastAPI) -> None:
    """Serve the page and its files."""

    @app.get("/", include_in_schema=False, response_model=None)
    async def page(request: Request) -> FileResponse:
        index = PAGE / "index.html"
        if not index.is_file():
            raise Refusal(404, "This installation has no page.", "The API is described at /docs.")
        return FileResponse(index)

    if PAGE.is_dir():
        app.mount("/static", StaticFiles(directory=PAGE))
