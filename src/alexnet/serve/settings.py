"""What a server allows: every limit, in one value."""

from dataclasses import dataclass

from alexnet.errors import ConfigError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # all that is decoded, whatever a file is called


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The limits of a server. The table in docs/serving.md says what happens past each.

    Raises
    ------
    ConfigError
        When a limit would refuse everything.
    """

    max_bytes: int = 20_000_000  # of a request's body; a photograph of 24 megapixels has 5 to 12 MB
    max_pixels: int = 50_000_000  # of one image: 150 MB as RGB
    max_bytes_in_hand: int = 256_000_000  # of the bodies of all requests being answered
    max_images: int = 32  # in one request
    max_requests: int = 128  # being answered at once; past it a request is refused unread
    max_waiting: int = 256  # views in the network's queue: a second's work of two cores
    max_connections: int = 1_024  # open at once; the oldest idle one gives way
    batch_size: int = 32  # views run together, at most
    decoders: int = 2  # threads that decode images
    head_seconds: float = 10.0  # for a connection's first request line and headers
    body_seconds: float = 10.0  # for a body, and a second more for every `slowest` bytes of it
    slowest: int = 65_536  # bytes a second
    request_seconds: float = 30.0  # for the answer, once the body is there
    idle_seconds: int = 5  # that a connection is kept for its next request
    drain_seconds: int = 30  # for the requests in hand when the server is asked to stop
    compile: bool = True  # the network, in the background
    training_images: int = 2_000  # looked at for exciting patches and neighbours
    token: str = ""  # asked for as `Authorization: Bearer`; empty: none is
    hosts: tuple[str, ...] = ()  # names it answers to, besides localhost and plain addresses

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_images", "max_waiting", "decoders"):
            if getattr(self, name) < 1:
                shown = name.replace("_", "-")
                raise ConfigError(f"--{shown} is {getattr(self, name)}.", "It must be at least 1.")
