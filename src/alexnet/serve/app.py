"""The application: the routes of the API, the page, and its description, behind admission."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jinja2
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from alexnet import __version__
from alexnet.errors import AlexNetError
from alexnet.serve.admission import App, HTTPError
from alexnet.serve.exchange import AdmissionMiddleware
from alexnet.serve.routes import router
from alexnet.serve.service import Service

HERE = Path(__file__).parent
PAGE = HERE / "page"
REFERENCE = HERE / "reference.html.jinja"


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
    app.state.service = service
    app.include_router(router)
    _add_pages(app)

    async def answer_error(request: Request, error: Exception) -> Response:
        refusal = service.admission.explain(request, error)
        return refusal.to_response(request.scope["request_id"])

    async def answer_nobody(request: Request, error: Exception) -> Response:
        return Response(status_code=499)  # the client went away

    for kind in (AlexNetError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, answer_error)
    app.add_exception_handler(ClientDisconnect, answer_nobody)
    return AdmissionMiddleware(app, service.admission)


def _add_pages(app: FastAPI) -> None:
    """Serve the page and its files, and the description of the API without a script."""
    template = jinja2.Environment(autoescape=True).from_string(REFERENCE.read_text("utf-8"))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        index = PAGE / "index.html"
        if not index.is_file():
            raise HTTPError(404, "This installation has no page.", "The API is described at /docs.")
        return FileResponse(index)

    @app.get("/docs", include_in_schema=False)
    async def reference() -> HTMLResponse:
        return HTMLResponse(template.render(app.openapi(), values=_describe_values))

    if PAGE.is_dir():
        app.mount("/static", StaticFiles(directory=PAGE))


def _describe_values(schema: dict[str, Any]) -> str:
    """Return what values a setting takes, in words."""
    if "enum" in schema:
        words = " or ".join(map(str, schema["enum"]))
    elif "anyOf" in schema:
        words = " or ".join(str(option.get("type")) for option in schema["anyOf"])
    else:
        words = str(schema.get("type", "anything"))
        if "minimum" in schema:
            words += f" from {schema['minimum']}"
        if "maximum" in schema:
            words += f" to {schema['maximum']}"
    return words + (f"; by default {schema['default']}" if schema.get("default") else "")
