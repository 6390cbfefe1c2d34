"""From a tick of arrivals to samples of the arms that rollouts ask for. Pure.

Presence: a version of which nothing was heard has no sample; one that is there and sent nothing counted 0,
and its sample says how old the last word of it is, so the judge knows silence from health.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TypedDict

from domain.clock import tick_floor
from domain.signal import Arm, Channel, Quality, Sample
from streams.pollers.base import Fetched, Target, histogram_sample, ratio_sample
from streams.pollers.otlp_book import REACH_S, Cell, Tick
from streams.pollers.otlp_config import OtlpMapping
from streams.pollers.otlp_count import Origin

RATIOS = {
    Channel.METRICS: "error_rate",
    Channel.LOGS: "log_error_ratio",
    Channel.TRACES: "trace_error_ratio",
}
LATENCY = "latency_ms"
UNNAMED = "unnamed"
"""The replica of what came without an instance id, where other instances have one."""


class _Given(TypedDict):
    """What the samples of a replica have in common."""

    start: float
    end: float
    quality: Quality
    age_s: float


class TickReader:
    """Answers targets from one tick."""

    def __init__(self, tick: Tick, mapping: OtlpMapping, interval_s: float, reach_s: float) -> None:
        self._tick = tick
        self._mapping = mapping
        self._interval_s = interval_s
        self._reach_s = reach_s
        self._origins: dict[tuple[str, str], list[Origin]] = defaultdict(list)
        for origin in sorted(tick.newest):
            self._origins[origin.service, origin.version].append(origin)

    def fetched(self, targets: Sequence[Target]) -> Fetched:
        """Samples of every target, or why there are none."""
        samples: list[Sample] = []
        problems: dict[str, str] = {}
        for target in targets:
            if not {RATIOS[self._mapping.carries], LATENCY} & set(target.signals):
                continue
            arms = {arm: self._heard(target, arm) for arm in Arm}
            if not any(arms.values()):
                problems[target.rollout_id] = self._why_nothing(target)
            for arm, origins in arms.items():
                samples += self._samples(target, arm, origins)
        return Fetched(end=self._tick.end, samples=samples, problems=problems)

    def _heard(self, target: Target, arm: Arm) -> list[Origin]:
        """The instances of an arm that are not gone."""
        mapping = self._mapping
        key = (target.label_value(mapping.service, arm), target.label_value(mapping.version, arm))
        environments = ("", target.label_value(mapping.environment, arm))
        return [
            origin
            for origin in self._origins.get(key, ())
            if not mapping.environment_attribute or origin.environment in environments
        ]

    def _samples(self, target: Target, arm: Arm, origins: Sequence[Origin]) -> list[Sample]:
        if not origins:
            return []
        present, quality = self._present(origins)
        cells = {name: self._cell(of) for name, of in present.items()}
        if all(cell.is_first and not cell.counted for cell in cells.values()):
            quality |= Quality.FIRST
        samples = []
        for name, cell in cells.items():
            newest = max(self._tick.newest[origin] for origin in present[name])
            given = self._given(cell, newest, quality)
            ratio = RATIOS[self._mapping.carries]
            if ratio in target.signals:
                samples.append(
                    ratio_sample(
                        target, ratio, arm, events=cell.bad, exposure=cell.total, replica=name, **given
                    )
                )
            if LATENCY in target.signals and self._mapping.carries is Channel.METRICS:
                samples += self._latency(target, arm, cell, name, given)
        return samples

    def _present(self, origins: Sequence[Origin]) -> tuple[Mapping[str, list[Origin]], Quality]:
        """An arm's instances by replica name.

        One that fell silent is left out, because the age of the arm is that of its oldest replica; until it
        is known to be gone, the arm is partial. If all of them did, they all stand, with their age.
        """
        tick = self._tick
        speaking = [each for each in origins if tick.end - tick.newest[each] <= tick.grace_s]
        quality = tick.quality | (Quality.PARTIAL if 0 < len(speaking) < len(origins) else Quality.WHOLE)
        named: dict[str, list[Origin]] = defaultdict(list)
        is_split = self._mapping.replicas and any(origin.instance for origin in origins)
        for origin in speaking or origins:
            named[(origin.instance or UNNAMED) if is_split else ""].append(origin)
        # The same instance may be here with and without an environment; it is one replica.
        return named, quality

    def _cell(self, origins: Sequence[Origin]) -> Cell:
        found = [self._tick.cells[origin] for origin in origins if origin in self._tick.cells]
        if len(found) == 1:
            return found[0]
        cell = Cell()
        for each in found:
            cell.join(each)
        return cell

    def _given(self, cell: Cell, newest: float, quality: Quality) -> _Given:
        """What the samples of a replica have in common."""
        tick = self._tick
        if cell.is_first:
            quality |= Quality.PARTIAL if cell.counted else Quality.FIRST
        start = tick.start
        if cell.counted and cell.start < tick.start - self._reach_s:
            start = tick_floor(max(cell.start, tick.end - REACH_S), self._interval_s)
        if tick.end - start > 1.5 * self._interval_s:
            quality |= Quality.SPANS
        age_s = max(0.0, tick.end - newest)
        return {"start": start, "end": tick.end, "quality": quality | cell.quality, "age_s": age_s}

    def _latency(self, target: Target, arm: Arm, cell: Cell, replica: str, given: _Given) -> list[Sample]:
        """No sample if nobody can tell how long requests took: without edges there is nothing to judge."""
        limits = target.signals[LATENCY]
        buckets = dict.fromkeys(limits, 0.0)
        exposure = 0.0
        if cell.total:
            if cell.latencies is None or not (at := cell.latencies.at_edges(limits)):
                return []
            buckets, exposure = dict(at), cell.latencies.count
        sample = histogram_sample(
            target,
            LATENCY,
            arm,
            exposure=exposure,
            buckets=buckets,
            keep_all=self._mapping.histogram == "full",
            replica=replica,
            **given,
        )
        return [sample]

    def _why_nothing(self, target: Target) -> str:
        """What was looked for in vain, and what was there instead."""
        mapping = self._mapping
        service = target.label_value(mapping.service, Arm.CANARY)
        versions = " or ".join(repr(target.label_value(mapping.version, arm)) for arm in Arm)
        wanted = f"{mapping.service_attribute}={service!r} with {mapping.version_attribute}={versions}"
        of_service = [each for each in self._tick.newest if each.service == service]
        if not of_service:
            others = sorted({each.service for each in self._tick.newest})
            return f"nothing came of {wanted}; services heard were {', '.join(others[:8]) or 'none'}"
        seen = sorted({f"{each.version} ({each.environment or 'no environment'})" for each in of_service})
        return f"nothing came of {wanted}; versions heard were {', '.join(seen[:8])}"
