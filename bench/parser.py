"""Speed of the exposition parser, beside prometheus_client's, on the same pages in one run.

``python -m bench.parser [--services 100] [--seconds 2.0] [--json]``. One core; samples per second of CPU
time, of the fastest of many readings. A page holds counters by code and method and histograms of two
versions, as exporters write them; the flavours add timestamps or, as OpenMetrics, exemplars. ``first`` is a
page none of whose series was met before, ``whole`` is what a poll does: the page parsed and every series
looked up and added to its version's counters.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from time import process_time

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from rich.console import Console
from rich.table import Table

from streams.pollers.exposition import PageParser
from streams.pollers.scrape_page import PageReader, ScrapeSettings

Official = Callable[[str], Iterable[Metric]]

EDGES = ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf")
SETTINGS = {
    "kind": "scrape",
    "targets": ["http://127.0.0.1:1"],
    "requests": "http_requests_total",
    "error_label": "code",
    "error_values": "5..",
    "latency": "http_request_duration_seconds",
    "service_label": "service",
}
LEAST = 5
"""Readings of a page at least."""
EXEMPLAR = ' # {trace_id="4bf92f3577b34da6a3ce929d0e0e4736"} 0.043 1700000000.5'


@dataclass(frozen=True, slots=True)
class Speed:
    """One row of the table."""

    page: str
    samples: int
    first_per_s: float
    """A page none of whose series was met before."""
    known_per_s: float
    whole_per_s: float
    official_per_s: float
    ratio: float
    """Known series, by the official parser."""


def page_of(services: int, stamp: str = "", exemplar: str = "") -> str:
    """A page of ``services`` services; every value has ``stamp`` behind it, those that may an exemplar."""
    versions = [(number, version) for number in range(services) for version in ("v1", "v2")]
    lines = ["# TYPE http_requests counter", "# HELP http_requests Requests answered."]
    for number, version in versions:
        for code in ("200", "404", "500", "503"):
            for method in ("GET", "POST"):
                labels = f'{_labels(number, version)},method="{method}",code="{code}"'
                lines.append(f"http_requests_total{{{labels}}} {number * 31 + 7}.0{stamp}{exemplar}")
    lines.append("# TYPE http_request_duration_seconds histogram")
    for number, version in versions:
        labels = _labels(number, version)
        for position, edge in enumerate(EDGES):
            series = f'http_request_duration_seconds_bucket{{{labels},le="{edge}"}}'
            lines.append(f"{series} {number * 17 + position}.0{stamp}{exemplar}")
        count = number * 17 + len(EDGES) - 1
        lines.append(f"http_request_duration_seconds_count{{{labels}}} {count}.0{stamp}")
        lines.append(f"http_request_duration_seconds_sum{{{labels}}} {count * 0.1}{stamp}")
    return "\n".join([*lines, "# EOF", ""])


def _labels(number: int, version: str) -> str:
    return f'service="shop-{number:04d}",version="{version}",pod="shop-{number:04d}-{version}-0"'


def fastest(work: Callable[[], object], seconds: float) -> float:
    """Seconds of CPU time that ``work`` needs, from the fastest of many calls."""
    best, spent, calls = float("inf"), 0.0, 0
    while spent < seconds or calls < LEAST:
        began = process_time()
        work()
        took = process_time() - began
        best, spent, calls = min(best, took), spent + took, calls + 1
    return best


def measure(name: str, page: str, official: Official, seconds: float) -> Speed:
    """All parsers on one page, one after the other."""
    parser = PageParser()
    samples = len(parser.parse(page))
    reader = PageReader(ScrapeSettings.read("bench", SETTINGS), {})
    reader.read(page)
    theirs = fastest(lambda: [each for family in official(page) for each in family.samples], seconds)
    known = fastest(lambda: parser.parse(page), seconds)
    return Speed(
        page=name,
        samples=samples,
        first_per_s=samples / fastest(lambda: PageParser().parse(page), seconds),
        known_per_s=samples / known,
        whole_per_s=samples / fastest(lambda: reader.read(page), seconds),
        official_per_s=samples / theirs,
        ratio=theirs / known,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.parser", description="Speed of page parsing.")
    parser.add_argument("--services", type=int, default=100, help="services on the page")
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU seconds per number")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    pages: list[tuple[str, str, Official]] = [
        ("text", page_of(options.services), read_text),
        ("text, timestamps", page_of(options.services, stamp=" 1700000000000"), read_text),
        ("OpenMetrics, exemplars", page_of(options.services, exemplar=EXEMPLAR), read_open_metrics),
    ]
    speeds = [measure(name, page, official, options.seconds) for name, page, official in pages]
    if options.json:
        print(json.dumps({"speeds": [asdict(each) for each in speeds]}))
        return 0
    table = Table(
        "page", "samples", "first", "known", "whole", "prometheus_client", "ratio", title="samples/s"
    )
    for each in speeds:
        rates = (each.first_per_s, each.known_per_s, each.whole_per_s, each.official_per_s)
        table.add_row(each.page, str(each.samples), *(f"{rate:,.0f}" for rate in rates), f"{each.ratio:.1f}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
