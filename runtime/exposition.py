"""The door to Prometheus, the only file that imports prometheus_client. In: readings. Out: a page over HTTP.

Nothing is kept here and nothing runs between two requests: each one reads what its owners count anyway.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from runtime.measurements import Histogram, Kind, Reading
from runtime.settings import HunchSettings
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

logger = logging.getLogger(__name__)

Read = Callable[[], Iterable[Reading]]


@contextlib.contextmanager
def serving(settings: HunchSettings, read: Read) -> Iterator[None]:
    """Show the readings at the set address, as long as the context lasts; at none where it is None.

    `read` is called in a thread of its own. Raises ConfigurationError where an address that was asked for
    cannot be served; one that is only the default must not keep the process from its work.
    """
    stop: Callable[[], None] | None = None
    try:
        if settings.metrics_address is not None:
            stop = _serve(settings.metrics_address, read)
    except ConfigurationError as error:
        if "metrics_address" in settings.model_fields_set:
            raise
        logger.warning("%s", error)
    try:
        yield
    finally:
        if stop is not None:
            stop()


def _serve(address: str, read: Read) -> Callable[[], None]:
    """Start to serve; returns what ends it."""
    try:
        # Here and not above: a board needs no Prometheus.
        from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"metrics on {address} need the package prometheus-client; install it (pip install "
            "prometheus-client) or set --metrics-address off"
        ) from error
    registry = CollectorRegistry()
    registry.register(_Collector(read))
    ProcessCollector(registry=registry)
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), addr=host.strip("[]"), registry=registry)
    except OSError as error:
        raise ConfigurationError(
            f"metrics cannot be served on {address}: {error.strerror or error}; set another --metrics-address, or off"
        ) from error
    logger.info("metrics for Prometheus on http://%s/metrics", address)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


class _Collector:
    """What prometheus_client asks for at each request."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def collect(self) -> Iterator[Family]:
        """The readings in the library's own form."""
        for _, readings in itertools.groupby(self._read(), key=lambda reading: reading.metric):
            yield _family(list(readings))

    def describe(self) -> list[Family]:
        """Nothing: else the library would call `collect` when it is told of us, before there is anything."""
        return []


def _family(readings: list[Reading]) -> Family:
    """One metric with all its values."""
    from prometheus_client.metrics_core import (  # noqa: PLC0415
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    metric = readings[0].metric
    kinds = {
        Kind.COUNTER: CounterMetricFamily,
        Kind.GAUGE: GaugeMetricFamily,
        Kind.HISTOGRAM: HistogramMetricFamily,
    }
    family: Any = kinds[metric.kind](metric.name, metric.help, labels=metric.labels)
    for reading in readings:
        if isinstance(reading.value, Histogram):
            family.add_metric(reading.labels, reading.value.cumulative(), reading.value.sum)
        else:
            family.add_metric(reading.labels, reading.value)
    return cast("Family", family)
