"""The port of telemetry sources: what a poller asks, and what a source answers.

A source is asked once per tick for all rollouts and answers with increments of disjoint ticks, never with
rates. What it remembers between two calls belongs to the pair (source, interval), not to a rollout: a rollout
that joins a running pair gets a whole first tick.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

from domain.rollout import RolloutSpec
from domain.signal import REQUESTS, Arm, Channel, Freshness, Quality, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a source must know of a rollout."""

    rollout_id: str
    service: str
    environment: str
    stable: str
    canary: str
    signals: Mapping[str, tuple[float, ...]]
    """The signals wanted of this source; for a latency the values whose bucket edges must not be missing."""

    def version(self, arm: Arm) -> str:
        return self.stable if arm is Arm.STABLE else self.canary

    def label_value(self, template: str, arm: Arm) -> str:
        """``template`` filled in for one arm.

        >>> target = Target(rollout_id="r", service="shop", environment="prod", stable="v1", canary="v2",
        ...                 signals={})
        >>> target.label_value("{service}_{version}", Arm.CANARY)
        'shop_v2'
        """
        return template.format(service=self.service, environment=self.environment, version=self.version(arm))


def target_of(spec: RolloutSpec, channel: Channel) -> Target:
    """What the source of ``channel`` must know of a rollout."""
    needed: dict[str, tuple[float, ...]] = {}
    for gate in spec.policy.gates:
        if gate.kind.channel is channel:
            limits = (gate.slo, gate.severe) if gate.quantile is not None else ()
            needed[gate.signal] = needed.get(gate.signal, ()) + limits
        if gate.kind.per_request and channel is Channel.METRICS:
            needed.setdefault(REQUESTS, ())
    return Target(
        rollout_id=spec.rollout_id,
        service=spec.service,
        environment=spec.environment,
        stable=spec.stable,
        canary=spec.canary,
        signals=needed,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """An answer: "this is all there is up to ``end``".

    ``problems`` says, by rollout id and in the source's own words, why there is nothing for some rollouts.
    """

    end: float
    samples: Sequence[Sample] = ()
    problems: Mapping[str, str] = field(default_factory=dict)


class Source(Protocol):
    """One configured place that telemetry comes from."""

    name: str
    channel: Channel
    freshness: Freshness

    async def fetch(self, targets: Sequence[Target], end: float, interval_s: float) -> Fetched:
        """Everything new up to ``end``, a multiple of ``interval_s``.

        Called once per tick and interval, never twice at once for one interval; ``end`` rises from call to
        call and may skip ticks. The first call of an interval is made between two ticks, its samples are
        dropped: it is the time to take a first reading.

        Raises
        ------
        SourceError
            The source as a whole could not answer. Trouble with one target only is no error: it shows in
            ``Quality.PARTIAL`` or in :attr:`Fetched.problems`.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and files; nothing is called afterwards."""
        ...


def ratio_sample(
    target: Target,
    signal: str,
    arm: Arm,
    *,
    start: float,
    end: float,
    events: float,
    exposure: float,
    quality: Quality = Quality.WHOLE,
    age_s: float = 0.0,
    replica: str = "",
) -> Sample:
    """A sample of a ratio whose bad events are among the exposure.

    Two counters of one page need not have been read at one instant: a bad event that its total does not hold
    yet is a request all the same, so the exposure is raised to the events.
    """
    return Sample(
        rollout_id=target.rollout_id,
        signal=signal,
        arm=arm,
        start=start,
        end=end,
        events=events,
        exposure=max(events, exposure),
        age_s=age_s,
        quality=int(quality),
        replica=replica,
    )


def histogram_sample(
    target: Target,
    signal: str,
    arm: Arm,
    *,
    start: float,
    end: float,
    exposure: float,
    buckets: Mapping[float, float],
    keep_all: bool = False,
    quality: Quality = Quality.WHOLE,
    age_s: float = 0.0,
    replica: str = "",
) -> Sample:
    """A sample of a histogram with cumulative ``buckets`` (count at or below each finite edge).

    Without ``keep_all`` only the edges that the target's limits need are kept. Buckets that were not read at
    one instant may contradict each other by a few observations; the larger count is believed.
    """
    edges = sorted(buckets) if keep_all else edges_around(sorted(buckets), target.signals[signal])
    counts = list(accumulate((buckets[edge] for edge in edges), max))
    return Sample(
        rollout_id=target.rollout_id,
        signal=signal,
        arm=arm,
        start=start,
        end=end,
        events=0.0,
        exposure=max([exposure, *counts[-1:]]),
        edges=tuple(edges),
        counts=tuple(counts),
        age_s=age_s,
        quality=int(quality),
        replica=replica,
    )


def edges_around(edges: Sequence[float], limits: Iterable[float]) -> list[float]:
    """The bucket edges that bound each limit from both sides: the limit itself where it is an edge.

    >>> edges_around([100.0, 250.0, 500.0, 1000.0], [400.0, 1000.0])
    [250.0, 500.0, 1000.0]
    """
    kept: set[float] = set()
    for limit in limits:
        below, above = bisect_right(edges, limit) - 1, bisect_left(edges, limit)
        kept.update(edges[index] for index in (below, above) if 0 <= index < len(edges))
    return sorted(kept)
