"""What the server counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Measures:
    """The counters of a process: with several workers each has its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "alexnet_requests", "Requests answered.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "alexnet_request_seconds", "From the first header to the last byte of the answer.",
            ["route"], buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self._batches = Histogram(
            "alexnet_batch_images", "Images run together.", buckets=SIZES, registry=self._registry
        )
        self._forward = Counter(
            "alexnet_forward_seconds", "Time that the network ran.", registry=self._registry
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request; 499 where the client went away."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def ran(self, images: int, seconds: float) -> None:
        """Count a batch."""
        self._batches.observe(images)
        self._forward.inc(seconds)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a number that is looked up when it is asked for."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)
