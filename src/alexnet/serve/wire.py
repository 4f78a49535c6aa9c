"""The protocol of a connection, with the deadlines that uvicorn's lacks."""

from uvicorn.protocols.http.h11_impl import H11Protocol


class Wire(H11Protocol):
    """uvicorn's HTTP/1.1."""
