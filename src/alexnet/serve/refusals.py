"""Refusing a request: one form for every error, with a sentence on what to do."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from alexnet.errors import AlexNetError


class Refusal(AlexNetError):
    """A request that is not answered as it was asked.

    Parameters
    ----------
    status : int
        The HTTP status.
    what, fix : str
        A sentence each, as for every `AlexNetError`.
    headers : Mapping
        More headers of the answer, such as ``Retry-After``.
    """

    def __init__(
        self, status: int, what: str, fix: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(what, fix)
        self.status = status
        self.headers = dict(headers or {})


def busy(what: str, seconds: int = 1) -> Refusal:
    """Return the refusal of a request that may be sent again after some seconds."""
    fix = f"Send the request again in {seconds} second{'s' if seconds != 1 else ''}."
    return Refusal(503, what, fix, {"Retry-After": str(seconds)})


def error_body(what: str, fix: str = "") -> dict[str, Any]:
    """Return the JSON of every error: ``{"error": {"reason": ..., "fix": ...}}``."""
    return {"error": {"reason": what, "fix": fix}}


def refused(refusal: Refusal) -> JSONResponse:
    """Return the answer to a refused request."""
    body = error_body(refusal.what, refusal.fix)
    return JSONResponse(body, refusal.status, headers=refusal.headers)


def raw_answer(status: int, what: str, fix: str) -> bytes:
    """Return a whole HTTP answer, for a connection on which no request has come."""
    body = json.dumps(error_body(what, fix)).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
