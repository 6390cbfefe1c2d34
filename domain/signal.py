"""What is counted, per arm and tick.

A *signal* is a stream of increments of monotone counters over disjoint ticks: ``events`` out of ``exposure``,
or, for latencies, how many observations fell at or below each bucket edge. Ratios, rates and quantiles are
never transported: they cannot be added up.
"""

from __future__ import annotations

from enum import Enum, IntFlag

import msgspec


class Arm(Enum):
    """The two sides of a comparison."""

    STABLE = "stable"
    CANARY = "canary"


class Channel(Enum):
    """Which kind of telemetry carries a signal, and so which topic."""

    METRICS = "metrics"
    LOGS = "logs"
    TRACES = "traces"


class Shape(Enum):
    """What the numbers of a signal mean."""

    RATIO = "ratio"
    """``events`` bad ones among ``exposure``."""
    HISTOGRAM = "histogram"
    """``exposure`` observations, with cumulative counts at bucket edges."""
    COUNT = "count"
    """``events`` per unit of ``exposure``; one unit may bring several."""


class Freshness(Enum):
    """How far behind the present a source reports, and for how many seconds a tick waits for it."""

    REALTIME = "realtime", 1.0
    NEAR = "near", 10.0
    SLOW = "slow", 180.0

    lateness_s: float
    """Seconds a tick waits for this class after its end."""

    def __new__(cls, value: str, lateness_s: float) -> Freshness:
        member = object.__new__(cls)
        member._value_ = value
        member.lateness_s = lateness_s
        return member


class Quality(IntFlag):
    """What a reader must know about an increment besides its numbers."""

    WHOLE = 0
    FIRST = 1
    """The first reading of a counter: there is nothing to subtract from, so the increment is empty."""
    RESET = 2
    """A counter went down: what was counted between the last reading and the reset is lost."""
    PARTIAL = 4
    """Some targets of the arm did not answer; both numbers come from those that did."""
    SPANS = 8
    """The increment covers more than one tick, because readings were missed."""
    INEXACT = 16
    """The source extrapolates; counts are not integers of something that happened."""
    ASSUMED = 32
    """The exposure was not measured but follows from the nominal weight; no evidence may come of it."""


class SignalKind(msgspec.Struct, frozen=True, kw_only=True):
    """A signal that gates may name."""

    name: str
    channel: Channel
    shape: Shape
    unit: str
    meaning: str
    per_request: bool = False
    """Judge events per *request* of the same arm and tick when requests are known."""


REQUESTS = "error_rate"
"""The signal whose exposure is "requests": the denominator of per-request signals."""

SIGNALS: dict[str, SignalKind] = {
    kind.name: kind
    for kind in (
        SignalKind(
            name="error_rate",
            channel=Channel.METRICS,
            shape=Shape.RATIO,
            unit="failed requests / requests",
            meaning="requests that the service answered with a server error",
        ),
        SignalKind(
            name="latency_ms",
            channel=Channel.METRICS,
            shape=Shape.HISTOGRAM,
            unit="milliseconds",
            meaning="time to answer a request",
        ),
        SignalKind(
            name="log_error_ratio",
            channel=Channel.LOGS,
            shape=Shape.RATIO,
            unit="error lines / requests",
            meaning="log lines of level error or worse, per request where requests are known, else per line",
            per_request=True,
        ),
        SignalKind(
            name="trace_error_ratio",
            channel=Channel.TRACES,
            shape=Shape.RATIO,
            unit="failed server spans / server spans",
            meaning="server spans with status error",
        ),
    )
}
"""The signals every source may offer, by name."""

CUSTOM_PREFIX = "custom:"
COUNT_PREFIX = "count:"


def signal_kind(name: str) -> SignalKind:
    """The kind of a signal, the user's own (``custom:``, ``count:``) included; ``ValueError`` if unknown."""
    if name in SIGNALS:
        return SIGNALS[name]
    if name.startswith(CUSTOM_PREFIX) and len(name) > len(CUSTOM_PREFIX):
        return SignalKind(
            name=name,
            channel=Channel.METRICS,
            shape=Shape.RATIO,
            unit="events / exposure",
            meaning="a ratio of two counters the user named",
        )
    if name.startswith(COUNT_PREFIX) and len(name) > len(COUNT_PREFIX):
        return SignalKind(
            name=name,
            channel=Channel.METRICS,
            shape=Shape.COUNT,
            unit="events per unit of exposure",
            meaning="a counter the user named, per request or per second of a replica",
        )
    known = ", ".join(SIGNALS)
    raise ValueError(
        f"unknown signal {name!r}; known are {known}, {CUSTOM_PREFIX}NAME and {COUNT_PREFIX}NAME"
    )


class Sample(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What one source counted for one signal and arm of one rollout in ``[start, end)``.

    ``end - start`` is a whole number of ticks; more than one when readings were missed (``Quality.SPANS``).
    ``edges`` ascend and ``counts[i]`` is the number of observations at or below ``edges[i]`` (cumulative, as
    Prometheus buckets are), so ``counts`` ascends too and ends at or below ``exposure``.
    ``age_s`` is how old the newest datum behind the numbers was when it was read.
    ``replica`` names the replica of the arm (pod, instance) that the counts come from; "" is the whole arm. A
    source gives either the whole arm or all the replicas it knows, each once, and a replica keeps its name.
    """

    rollout_id: str
    signal: str
    arm: Arm
    start: float
    end: float
    events: float
    exposure: float
    edges: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()
    age_s: float = 0.0
    quality: int = 0
    replica: str = ""
