#!/usr/bin/env bash
# FastAPI 0.165.0 (with pydantic 2.14.4, starlette 1.10.0, Python 3.11): a return annotation turns
# an error into `null`.
#
# A route answers with a probability that is NaN (a network that has diverged). One would expect
# the same answer whether or not the function says what it returns; and with a model whose field is
# `float`, one would expect an error, since the description at /openapi.json promises a required
# number and JSON has none that is NaN.
#
# Seen: without the annotation the route fails (500; Starlette's encoder refuses NaN). With `->
# Prediction` it answers 200 with {"probability":null}: pydantic writes the annotated answer
# itself, and it writes NaN as null. The description still says that the field is a required number,
# and the model refuses to read its own answer. Both routes return an equal object. A dict behaves
# in the same way.
#
# Output:
#   route        status   body
#   /annotated   200      {"probability":null}
#   /plain       500      ValueError: Out of range float values are not JSON compliant
#   described: {'type': 'number', 'title': 'Probability'} required: ['probability']
#   the model reads its own answer: ValidationError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet fastapi==0.165.0 pydantic==2.14.4 starlette==1.10.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import asyncio
import math

from fastapi import FastAPI
from pydantic import BaseModel, ValidationError


class Prediction(BaseModel):
    probability: float


app = FastAPI()


@app.get("/annotated")
async def annotated() -> Prediction:
    return Prediction(probability=math.nan)


@app.get("/plain")
async def plain():
    return Prediction(probability=math.nan)


async def get(path: str) -> tuple[int, str]:
    """Call the application by ASGI, as a server does; no socket is opened."""
    status, body, error = 0, b"", ""

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict) -> None:
        nonlocal status, body
        status = message.get("status", status)
        body += message.get("body", b"")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "client": None,
        "server": None,
    }
    try:
        await app(scope, receive, send)
    except ValueError as raised:  # Starlette answers with 500, then raises for the server's log
        error = f"ValueError: {str(raised).partition(':')[0]}"
    return status, error or body.decode()


answers = {path: asyncio.run(get(path)) for path in ("/annotated", "/plain")}
print(f"{'route':<12} {'status':<8} body")
for path, (status, body) in answers.items():
    print(f"{path:<12} {status:<8} {body}")
schema = app.openapi()["components"]["schemas"]["Prediction"]
print("described:", schema["properties"]["probability"], "required:", schema["required"])
try:
    Prediction.model_validate_json(answers["/annotated"][1])
    read = "no error"
except ValidationError:
    read = "ValidationError"
print("the model reads its own answer:", read)
assert answers["/annotated"] == (200, '{"probability":null}')
assert answers["/plain"][0] == 500 and answers["/plain"][1].startswith("ValueError")
assert schema["properties"]["probability"]["type"] == "number" and schema["required"] == [
    "probability"
]
assert read == "ValidationError"
PY
