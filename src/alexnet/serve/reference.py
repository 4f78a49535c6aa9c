"""The page at /docs: the OpenAPI description as plain HTML, without a script."""

from html import escape
from typing import Any

from fastapi import FastAPI
from starlette.responses import HTMLResponse

METHODS = ("get", "post")


def add_reference(app: FastAPI) -> None:
    """Serve the description of the application for people; ``/openapi.json`` is for programs."""

    @app.get("/docs", include_in_schema=False)
    async def reference() -> HTMLResponse:
        return HTMLResponse(as_html(app.openapi()))


def as_html(description: dict[str, Any]) -> str:
    """Return an OpenAPI description as a page."""
    about = description["info"]
    parts = [
        operation(method, path, item[method])
        for path, item in description["paths"].items()
        for method in METHODS
        if method in item
    ]
    title = escape(f"{about['title']} {about['version']}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}: API</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head><body>'
        f"<h1>{title}</h1><p>{escape(about['description'])} "
        'For programs: <a href="/openapi.json">openapi.json</a>.</p>'
        f"{''.join(parts)}</body></html>"
    )


def operation(method: str, path: str, about: dict[str, Any]) -> str:
    """Return a route as a section."""
    rows = [
        f"<tr><td><code>{escape(p['name'])}</code></td><td>{escape(kind(p['schema']))}</td>"
        f"<td>{escape(p.get('description', ''))}</td></tr>"
        for p in about.get("parameters", ())
    ]
    table = (
        "<table><thead><tr><th>query</th><th>values</th><th></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
        if rows
        else ""
    )
    data = " --data-binary @photograph.jpg" if "requestBody" in about else ""
    return (
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>"
        f"<p>{escape(about.get('description', about.get('summary', '')))}</p>{table}"
        f"<pre>curl{data} http://localhost:8000{escape(path)}</pre></section>"
    )


def kind(schema: dict[str, Any]) -> str:
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
