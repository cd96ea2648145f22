"""The page for Prometheus: what stands on it, and what keeps it from being served."""

from __future__ import annotations

import logging
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from runtime.exposition import serving
from runtime.measurements import Histogram, Kind, Metric, Reading
from runtime.settings import HunchSettings
from schemas.errors import ConfigurationError

TOKENS = Metric("hunch_tokens_total", Kind.COUNTER, "tokens", ("origin",))
LEVEL = Metric("hunch_level", Kind.GAUGE, "a level")
TIMES = Metric("hunch_seconds", Kind.HISTOGRAM, "times")


def settings(**given: object) -> HunchSettings:
    return HunchSettings(model=Path("any.gguf"), **given)  # type: ignore[arg-type]


def read() -> Iterator[Reading]:
    times = Histogram((1, 2))
    times.add_all([0.5, 1.0, 7.0])
    yield Reading(TOKENS, 3, ("skipped",))
    yield Reading(TOKENS, 1, ('a "quoted"\nline',))
    yield Reading(LEVEL, 0.25)
    yield Reading(TIMES, times)


@pytest.fixture
def port() -> int:
    """A port that is free; taken by nobody before the test takes it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free: int = probe.getsockname()[1]
    return free


def samples(port: int) -> dict[tuple[str, tuple[str, ...]], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        families = text_string_to_metric_families(page.read().decode())
        return {
            (sample.name, tuple(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }


def test_each_request_shows_the_values_of_now(port: int) -> None:
    level = iter([1.0, 2.0])
    with serving(settings(metrics_address=f"127.0.0.1:{port}"), lambda: [Reading(LEVEL, next(level))]):
        assert samples(port)["hunch_level", ()] == 1.0
        assert samples(port)["hunch_level", ()] == 2.0


def test_counters_gauges_and_histograms_stand_on_the_page(port: int) -> None:
    with serving(settings(metrics_address=f"127.0.0.1:{port}"), read):
        found = samples(port)
    assert found["hunch_tokens_total", ("skipped",)] == 3
    assert found["hunch_tokens_total", ('a "quoted"\nline',)] == 1
    assert found["hunch_level", ()] == 0.25
    buckets = {labels[0]: value for (name, labels), value in found.items() if name == "hunch_seconds_bucket"}
    assert buckets == {"1.0": 2, "2.0": 2, "+Inf": 3}
    assert (found["hunch_seconds_count", ()], found["hunch_seconds_sum", ()]) == (3, 8.5)
    assert found["process_resident_memory_bytes", ()] > 0


def test_the_port_is_free_again_afterwards(port: int) -> None:
    for _ in range(2):
        with serving(settings(metrics_address=f"127.0.0.1:{port}"), read):
            assert samples(port)
    with pytest.raises(urllib.error.URLError):
        samples(port)


def test_nothing_is_served_where_it_is_off() -> None:
    assert settings().metrics_address is None
    assert settings(metrics_address="off").metrics_address is None
    with serving(settings(), lambda: pytest.fail("nobody asked")):
        assert "runtime.exposition" in sys.modules


def test_a_taken_port_that_was_asked_for_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(ConfigurationError, match=rf"{address}: Address already in use; set another"),
            serving(settings(metrics_address=address), read),
        ):
            pytest.fail("it cannot be served")


def test_a_taken_port_that_is_only_the_default_keeps_nobody_from_working(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        class Default(HunchSettings):
            metrics_address: str | None = address

        with caplog.at_level(logging.WARNING), serving(Default(model=Path("any.gguf")), read):
            (record,) = caplog.records
    assert "Address already in use" in record.getMessage()


def test_without_the_package_one_line_says_what_to_install(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with (
        pytest.raises(ConfigurationError, match="need the package prometheus-client; install it"),
        serving(settings(metrics_address=f"127.0.0.1:{port}"), read),
    ):
        pytest.fail("it cannot be served")


@pytest.mark.parametrize("address", ["9464", "host", "host:", ":9464", "host:0", "host:65536", "host:http"])
def test_an_address_needs_a_host_and_a_port(address: str) -> None:
    with pytest.raises(ValueError, match=r"write 127\.0\.0\.1:9464, or off"):
        settings(metrics_address=address)
