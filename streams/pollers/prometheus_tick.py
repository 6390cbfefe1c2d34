"""One tick's increments of all versions at all endpoints, and the samples of arms that they make. Pure.

::

    series ──▶ parts by version, replica, signal and endpoint ──▶ arms ──▶ samples
               (sum of series scraped at one moment)         (sum of endpoints with news in this tick)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from msgspec import Struct, structs

from domain.clock import tick_floor
from domain.signal import COUNT_PREFIX, Arm, Sample
from streams.pollers.base import Target, histogram_sample, ratio_sample
from streams.pollers.counters import Increment, Part, add_up
from streams.pollers.prometheus_book import Dues
from streams.pollers.prometheus_counters import Counted, Endpoint
from streams.pollers.prometheus_plan import ERRORS, LATENCY, ArmPattern, Naming, Place, Role
from streams.pollers.prometheus_series import Reading
from streams.pollers.prometheus_settings import PER_REQUEST, PER_SECOND, PrometheusSettings

MOST_DUES = 1_000
"""Increments kept for an arm whose total does not come: without it they are of no use."""


class _Group(NamedTuple):
    """What is added up over the endpoints of a version."""

    replica: str
    signal: str


class _Sum(Struct, gc=False):
    """What the series of one group at one endpoint counted."""

    start: float | None = None
    newest: float = 0.0
    values: dict[Role | float, float] = {}
    is_reset: bool = False
    misses_some: bool = False
    """A series of it was seen for the first time and could not be counted."""

    def add(self, counted: Counted, name: Role | float) -> None:
        self.newest = max(self.newest, counted.newest)
        self.values[name] = self.values.get(name, 0.0) + counted.amount
        self.is_reset = self.is_reset or counted.is_reset
        if counted.start is None:
            self.misses_some = True
        else:
            self.start = counted.start if self.start is None else min(self.start, counted.start)


_Groups = list[tuple[_Group, list[_Sum]]]
"""The groups of an arm's versions with their endpoints."""


@dataclass(slots=True)
class Tick:
    """Everything that was counted by ``end`` and not before, and how to read it."""

    settings: PrometheusSettings
    end: float
    interval_s: float
    now: float
    dues: Dues
    silent: frozenset[Place]
    """Versions with an endpoint that could not be scraped."""
    _sums: dict[Place, dict[_Group, dict[Endpoint, _Sum]]] = field(default_factory=dict)
    _places: dict[tuple[str, str], set[Place]] = field(default_factory=lambda: defaultdict(set))
    """Versions with news, by environment and service."""

    def enter(self, readings: Iterable[Reading], counted: Iterable[Counted]) -> None:
        """Take what the series of ``readings`` counted."""
        means = {each.timeline.series: each for each in readings}
        classic = {
            each.timeline.lane
            for each in means.values()
            if not each.is_native and any(isinstance(name, float) for _, name in each.counters)
        }
        for each in counted:
            reading = means[each.series]
            # A histogram may be there in both forms; it must not count twice.
            if not (reading.is_native and each.lane in classic):
                self._add(reading, each)

    def samples(self, target: Target) -> list[Sample]:
        """The samples of both arms of a rollout. An arm without a new sample of its total has none."""
        return [
            sample
            for arm in Arm
            for signal in target.signals
            for sample in self._samples(target, arm, signal)
        ]

    def _add(self, reading: Reading, counted: Counted) -> None:
        place = counted.lane.place
        self._places[place.environment, place.service].add(place)
        for signal, name in reading.counters:
            self._sum(_Group(reading.replica, signal), counted).add(counted, name)
        if not reading.counters:
            # A version that is present has counted 0 of what it does not show yet.
            nothing = structs.replace(counted, amount=0.0, is_reset=False)
            self._sum(_Group(reading.replica, ERRORS), counted).add(nothing, Role.TOTAL)
            self._sum(_Group(reading.replica, LATENCY), counted).add(nothing, Role.COUNT)

    def _sum(self, group: _Group, counted: Counted) -> _Sum:
        endpoints = self._sums.setdefault(counted.lane.place, {}).setdefault(group, {})
        return endpoints.setdefault(counted.lane.endpoint, _Sum())

    def _samples(self, target: Target, arm: Arm, signal: str) -> Iterator[Sample]:
        pattern = Naming(self.settings).pattern(target, arm)
        groups = self._groups_of(pattern)
        named = sorted({group.replica for group, _ in groups})
        replicas: list[str | None] = [*named] if self.settings.replicas else [None]
        whole: frozenset[Role | float] | None = None
        if signal == LATENCY and self.settings.replicas:
            found = self._increment(signal, self._parts(groups, signal, None), pattern)
            whole = frozenset(found.values) if found else None
        for replica in replicas:
            parts = self._parts(groups, signal, replica)
            if whole is not None:
                # Counts of a replica at other edges than its arm's could not be added up.
                parts = [_at_names(part, whole) for part in parts]
            key = (target.rollout_id, arm, signal, replica or "")
            parts = self.dues.parts.pop(key, []) + parts
            counted = self._increment(signal, parts, pattern)
            if counted is not None:
                yield self._sample(target, arm, signal, counted, self._age_s(groups, signal), replica or "")
            elif parts:
                self.dues.parts[key] = parts[-MOST_DUES:]

    def _groups_of(self, pattern: ArmPattern) -> _Groups:
        places = pattern.among(self._places.get((pattern.environment, pattern.service), set()))
        return [
            (group, [*sums.values()]) for place in places for group, sums in self._sums.get(place, {}).items()
        ]

    def _parts(self, groups: _Groups, signal: str, replica: str | None) -> list[Part]:
        """The parts of a signal, with the total it is divided by."""
        parts: list[Part] = []
        for group, sums in groups:
            if replica is not None and group.replica != replica:
                continue
            for each in sums:
                if group.signal == signal:
                    parts += self._parts_of(each, signal)
                elif group.signal == ERRORS and self._exposure(signal) == PER_REQUEST:
                    total = each.values.get(Role.TOTAL)
                    if total is not None:
                        parts.append(self._part(each, {Role.TOTAL: total}))
        return parts

    def _parts_of(self, each: _Sum, signal: str) -> Iterator[Part]:
        values = dict(each.values)
        if self._exposure(signal) == PER_SECOND:
            values[Role.TOTAL] = 0.0 if each.start is None else each.newest - each.start
        yield self._part(each, values)
        if each.misses_some and each.start is not None:
            yield Part(None, dict.fromkeys(values, 0.0))

    def _part(self, each: _Sum, values: Mapping[Role | float, float]) -> Part:
        start = None if each.start is None else tick_floor(each.start, self.interval_s)
        return Part(start, values if start is not None else dict.fromkeys(values, 0.0), each.is_reset)

    def _exposure(self, signal: str) -> str:
        own = self.settings.signals.get(signal)
        return "" if own is None else own.exposure

    def _increment(self, signal: str, parts: Sequence[Part], pattern: ArmPattern) -> Increment | None:
        """What an arm counted; ``None`` while its total has no news."""
        total = Role.COUNT if signal == LATENCY else Role.TOTAL
        if not any(total in part.values for part in parts):
            return None
        counted = add_up(
            parts,
            end=self.end,
            interval_s=self.interval_s,
            is_partial=any(pattern.holds(place) for place in self.silent),
            common_only=signal == LATENCY,
        )
        return counted if counted is not None and total in counted.values else None

    def _age_s(self, groups: _Groups, signal: str) -> float:
        """How old the newest sample is of what the signal is made of."""
        times = [each.newest for group, sums in groups if group.signal in (signal, ERRORS) for each in sums]
        return max(0.0, self.now - max(times, default=self.end))

    def _sample(
        self, target: Target, arm: Arm, signal: str, counted: Increment, age_s: float, replica: str
    ) -> Sample:
        if signal == LATENCY:
            return self._latency(target, arm, counted, age_s, replica)
        events, exposure = counted.values.get(Role.BAD, 0.0), counted.values[Role.TOTAL]
        sample = ratio_sample(
            target,
            signal,
            arm,
            start=counted.start,
            end=counted.end,
            events=events,
            exposure=exposure,
            quality=counted.quality,
            age_s=age_s,
            replica=replica,
        )
        # One unit of exposure may bring several events of a count.
        return structs.replace(sample, exposure=exposure) if signal.startswith(COUNT_PREFIX) else sample

    def _latency(self, target: Target, arm: Arm, counted: Increment, age_s: float, replica: str) -> Sample:
        buckets = {name: value for name, value in counted.values.items() if isinstance(name, float)}
        if not buckets and counted.values[Role.COUNT] == 0:
            buckets = dict.fromkeys(target.signals[LATENCY], 0.0)
        return histogram_sample(
            target,
            LATENCY,
            arm,
            start=counted.start,
            end=counted.end,
            exposure=counted.values[Role.COUNT],
            buckets=buckets,
            keep_all=self.settings.histogram == "full",
            quality=counted.quality,
            age_s=age_s,
            replica=replica,
        )


def _at_names(part: Part, names: frozenset[Role | float]) -> Part:
    return replace(part, values={name: part.values.get(name, 0.0) for name in names})
