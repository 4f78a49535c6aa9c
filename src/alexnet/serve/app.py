"""The application: routes behind the gate, with one form for every error."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from alexnet.errors import AlexNetError
from alexnet.serve.gate import App, Gate
from alexnet.serve.reference import add_reference
from alexnet.serve.refusals import Refusal, error_body, refused
from alexnet.serve.routes_about import about_routes, add_page
from alexnet.serve.routes_look import look_routes
from alexnet.serve.routes_predict import predict_routes
from alexnet.serve.service import Service
from alexnet.version import __version__


def make_app(service: Service) -> App:
    """Return the ASGI application of a service, whose threads end with it."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="AlexNet",
        version=__version__,
        description=f"Classifies photographs with the run {service.run.folder.name!r}.",
        docs_url=None,  # FastAPI's page loads scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    for routes in (predict_routes, look_routes, about_routes):
        app.include_router(routes(service))
    add_reference(app)
    add_page(app)
    for error, handler in HANDLERS.items():
        app.add_exception_handler(error, handler)
    return Gate(app, service.settings, service.measures)


async def _refusal(request: Request, error: Any) -> Response:
    return refused(error)


async def _known(request: Request, error: Any) -> Response:
    return refused(Refusal(422, error.what, error.fix))


async def _http(request: Request, error: Any) -> Response:
    reasons = {
        404: f"There is nothing at {request.url.path!r}.",
        405: f"{request.method} is not done at {request.url.path!r}.",
    }
    what = reasons.get(error.status_code, f"The request was refused: {error.detail}.")
    body = error_body(what, "The API is described at /docs.")
    return JSONResponse(body, error.status_code, headers=error.headers)


async def _invalid(request: Request, error: Any) -> Response:
    first = error.errors()[0]
    where = first["loc"][-1] if first["loc"] else "request"
    what = f"The setting {where!r} cannot be used: {first['msg']}."
    return JSONResponse(error_body(what, "The API is described at /docs."), 422)


async def _failed(request: Request, error: Any) -> Response:
    what = "The server failed at this request, and has written down why."
    return JSONResponse(error_body(what, "Tell who runs it."), 500)


async def _gone(request: Request, error: Any) -> Response:
    return Response(status_code=499)  # nobody reads it


HANDLERS: dict[Any, Any] = {
    Refusal: _refusal,
    AlexNetError: _known,
    HTTPException: _http,
    RequestValidationError: _invalid,
    ClientDisconnect: _gone,
    Exception: _failed,
}
