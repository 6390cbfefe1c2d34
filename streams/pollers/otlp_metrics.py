"""Which points of a metrics request count requests, and what they say. Pure.

Requests are the observations of a server's duration histogram: their number, how long they took, and by an
attribute whether they failed. A protocol has one such metric in every convention; an instrument that follows
two conventions at once shows the same requests twice, so of each protocol only the newest one is counted.

References
----------
OpenTelemetry semantic conventions, "HTTP metrics", "RPC metrics"; metrics data model, "Temporality".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from streams.pollers.otlp_config import OtlpMapping
from streams.pollers.otlp_count import Attributes, Origin, Taken, attributes_of, origin_of
from streams.pollers.otlp_histograms import GRID_SCALE, Explicit, Exponential, Histogram

UNITS_MS = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "µs": 1e-3, "ns": 1e-6}
DELTA, CUMULATIVE = 1, 2
NO_VALUE = 1
"""The flag of a point that only says that its series is gone."""

MOST_BUCKETS = 2_000
"""Of one point. Producers keep 160."""
SCALES = range(-10, 21)
"""The scales the specification asks consumers to understand."""

SERVER_GRPC = r"2|4|12|13|14|15|UNKNOWN|DEADLINE_EXCEEDED|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS"
"""gRPC codes that say that the server failed, not its caller."""


class Convention(NamedTuple):
    """A metric of requests, and which of them failed."""

    protocol: str
    rank: int
    """Newer conventions of a protocol have lower ones."""
    attributes: tuple[str, ...]
    """The first of them that a point has tells."""
    failures: re.Pattern[str]
    """Of its whole value."""

    def is_failure(self, attributes: Attributes) -> bool:
        """Whether a point's requests failed: by its code, or, where none was sent, by having an error."""
        of = dict(attributes)
        for name in self.attributes:
            if name in of:
                return self.failures.fullmatch(of[name]) is not None
        return bool(of.get("error.type"))


_HTTP = ("http.response.status_code", "http.status_code")
_RPC = ("rpc.grpc.status_code", "rpc.response.status_code", "rpc.connect_rpc.error_code")
_CODE_5XX, _CODE_GRPC = re.compile("5.."), re.compile(SERVER_GRPC, re.IGNORECASE)
CONVENTIONS = {
    "http.server.request.duration": Convention("http", 0, _HTTP, _CODE_5XX),
    "http.server.duration": Convention("http", 1, _HTTP, _CODE_5XX),
    "rpc.server.call.duration": Convention("rpc", 0, _RPC, _CODE_GRPC),
    "rpc.server.duration": Convention("rpc", 1, _RPC, _CODE_GRPC),
}
_OLD_UNIT = {"http.server.duration": "ms", "rpc.server.duration": "ms"}


def conventions_of(mapping: OtlpMapping) -> dict[str, Convention]:
    """The metrics that count requests, by name."""
    if not mapping.requests:
        return CONVENTIONS
    failures = re.compile(mapping.error_values)
    return {name: Convention(name, 0, (mapping.error_attribute,), failures) for name in mapping.requests}


class MetricKey(NamedTuple):
    """One metric of one resource: its series live and die together."""

    resource: Attributes
    scope: tuple[str, str]
    name: str
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One point of a series of requests, its times in ns of the sender's clock."""

    key: MetricKey
    series: Attributes
    origin: Origin
    convention: Convention
    is_delta: bool
    start: int
    time: int
    count: float
    latencies: Histogram


@dataclass(frozen=True, slots=True)
class Alive:
    """A resource that sent metrics of any kind, the newest of them from ``time`` (ns)."""

    origin: Origin
    time: int


def read_metrics(
    request: Any, mapping: OtlpMapping, conventions: dict[str, Convention], taken: Taken
) -> Iterator[Point | Alive]:
    """The points of requests, and a sign of life of every resource. What is refused is told to ``taken``."""
    for of_resource in request.resource_metrics:
        resource = attributes_of(of_resource.resource.attributes)
        origin = origin_of(resource, mapping)
        newest = 0
        for of_scope in of_resource.scope_metrics:
            scope = (of_scope.scope.name, of_scope.scope.version)
            for metric in of_scope.metrics:
                kind = metric.WhichOneof("data")
                points: Sequence[Any] = getattr(metric, kind).data_points if kind is not None else ()
                if len(points):
                    newest = max(newest, points[0].time_unix_nano)
                convention = conventions.get(metric.name)
                if convention is None or not len(points):
                    continue
                if origin is None:
                    names = f"{mapping.service_attribute} and {mapping.version_attribute}"
                    taken.refuse(len(points), f"requests of a resource without {names} belong to no rollout")
                    continue
                key = MetricKey(resource, scope, metric.name, metric.unit)
                yield from _points(metric, kind, key, origin, convention, taken)
        if origin is not None and newest:
            yield Alive(origin, newest)


def _points(
    metric: Any, kind: str, key: MetricKey, origin: Origin, convention: Convention, taken: Taken
) -> Iterator[Point]:
    data = getattr(metric, kind)
    unit_ms = UNITS_MS.get(metric.unit or _OLD_UNIT.get(metric.name, "s"))
    rule = ""
    if kind not in ("histogram", "exponential_histogram"):
        rule = f"{metric.name} must be a histogram, not a {kind}"
    elif data.aggregation_temporality not in (DELTA, CUMULATIVE):
        rule = f"{metric.name} has neither delta nor cumulative temporality"
    elif unit_ms is None:
        rule = f"{metric.name} has the unit {metric.unit[:20]!r}; known are {', '.join(UNITS_MS)}"
    if rule or unit_ms is None:
        taken.refuse(len(data.data_points), rule)
        return
    for each in data.data_points:
        if each.flags & NO_VALUE:
            continue
        try:
            latencies = (_explicit if kind == "histogram" else _exponential)(each, unit_ms)
            _check_times(each, data.aggregation_temporality)
        except ValueError as exc:
            taken.refuse(1, f"a point of {metric.name} {exc}")
            continue
        yield Point(
            key=key,
            series=attributes_of(each.attributes),
            origin=origin,
            convention=convention,
            is_delta=data.aggregation_temporality == DELTA,
            start=each.start_time_unix_nano,
            time=each.time_unix_nano,
            count=float(each.count),
            latencies=latencies,
        )


def _check_times(point: Any, temporality: int) -> None:
    if not point.time_unix_nano:
        raise ValueError("has no time_unix_nano")
    if point.start_time_unix_nano > point.time_unix_nano:
        raise ValueError("begins after it ends")
    if temporality == DELTA and not point.start_time_unix_nano:
        raise ValueError("is a delta without start_time_unix_nano")


def _explicit(point: Any, unit_ms: float) -> Explicit:
    edges = edges_ms(tuple(point.explicit_bounds), unit_ms)
    counts = tuple(map(float, point.bucket_counts)) or (float(point.count),)
    if len(counts) > MOST_BUCKETS:
        raise ValueError(f"has more than {MOST_BUCKETS} buckets")
    if not point.bucket_counts:
        edges = ()
    elif len(counts) != len(edges) + 1:
        raise ValueError(f"has {len(counts)} bucket_counts for {len(edges)} explicit_bounds")
    if sum(counts) != point.count:
        raise ValueError(f"has a count of {point.count}, its buckets add up to {sum(counts):.0f}")
    return Explicit(edges, counts)


@lru_cache(maxsize=256)
def edges_ms(bounds: tuple[float, ...], unit_ms: float) -> tuple[float, ...]:
    """Bucket bounds in ms; ``ValueError`` unless they ascend."""
    if len(bounds) >= MOST_BUCKETS:
        raise ValueError(f"has more than {MOST_BUCKETS} buckets")
    edges = tuple(round(bound * unit_ms, 6) for bound in bounds)
    ascending = all(below < above for below, above in pairwise(edges))
    if not ascending or not all(map(math.isfinite, edges)):
        raise ValueError("has explicit_bounds that do not ascend")
    return edges


def _exponential(point: Any, unit_ms: float) -> Exponential:
    given, below = point.positive.bucket_counts, sum(point.negative.bucket_counts)
    if point.scale not in SCALES:
        raise ValueError(f"has the scale {point.scale}; known are {SCALES.start} to {SCALES.stop - 1}")
    if len(given) > MOST_BUCKETS:
        raise ValueError(f"has more than {MOST_BUCKETS} buckets")
    powers = (point.positive.offset, point.positive.offset + len(given))
    if any(abs(power) > 1000 * 2.0**point.scale for power in powers) and len(given):
        raise ValueError("has buckets beyond every duration")
    buckets = {point.positive.offset + position: float(n) for position, n in enumerate(given) if n}
    # Less than nothing is no duration, but it was a request, and not a slow one.
    found = Exponential(point.scale, float(point.zero_count + below), buckets, unit_ms)
    if found.count != point.count:
        raise ValueError(f"has a count of {point.count}, its buckets add up to {found.count:.0f}")
    return found.at_scale(GRID_SCALE)
