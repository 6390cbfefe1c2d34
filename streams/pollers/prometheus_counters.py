"""From raw samples of series to what was counted, every event once. Pure.

Prometheus scrapes at moments of its own, so a tick rarely ends at a sample. Each series keeps the last sample
that was used; a tick counts from there to the newest sample before its end::

    tick ends            5         10        15        20
    samples          100 .    .    .   130   .    .    .   170      one scrape in 15 s, ticks of 5 s
    counted              -         +30       -         -  +40
    over                           [0,10)                 [10,25)   each event in exactly one tick

A tick without a new sample counts nothing and says nothing: it is neither "no requests" nor good news.

What a new series began with
----------------------------
A counter appears with its first event, so its first value must be counted, unless it has counted for a year
and we only begin to look. It began at 0 when another series of the same endpoint was scraped at the same
moment and once before, at a moment for which we know that it was not there. Otherwise counting begins at its
first sample.

Resets
------
A value that falls began anew at 0. Another counter of the same process may have overtaken its old value in
the meantime, so a fall resets all series of the same endpoint and version scraped at that moment.

Pairs of servers
----------------
Two Prometheus servers that scrape the same process see the same counter at other moments. Each series follows
one server and goes over to the other when that one is ahead. A value that is lower there is a reset only if
that server has itself seen the counter fall; else the clocks of the two differ, and the value is passed over.

What is made for every series and tick says ``gc=False``: it cannot be part of a cycle, and looking for cycles
among so many took a third of the time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from msgspec import Struct

FORGET_S = 86_400.0
"""A series that shows no sample for so long is forgotten. Some exporters hide a counter that stands still,
and show it again, with all it ever counted, when it moves."""

SCRAPES_KEPT = 8
"""Scrapes of an endpoint that are remembered: some servers show the series of a scrape one after another."""

Endpoint = Hashable
"""What is scraped at one moment as a whole."""


class Lane(NamedTuple):
    """The series of one version at one endpoint: they begin anew together."""

    endpoint: Endpoint
    place: Any
    """The version, as labels name it. Hashable."""


class Moment(Struct, frozen=True, gc=False):
    """A value and when it was scraped."""

    at: float
    value: float


class Timeline(Struct, gc=False):
    """The samples of one series as one server has them, oldest first."""

    series: Hashable
    lane: Lane
    samples: Sequence[tuple[float, float]]
    asked_since: float
    """Samples are known from here on: one that is missing at a later moment was not there."""
    count_from: float = -math.inf
    """What a series without a last used sample counted before is of no interest."""
    server: str = ""


class Counted(Struct, frozen=True, gc=False):
    """What one series counted after ``start``, up to and with ``newest``.

    Without ``start`` it was seen for the first time and has counted nothing yet.
    """

    series: Hashable
    lane: Lane
    start: float | None
    newest: float
    amount: float
    is_reset: bool


class _Walk(Struct, gc=False):
    """A series' way through its new samples. ``before`` is where it starts from, if that is known."""

    timeline: Timeline
    before: Moment | None
    new: Sequence[tuple[float, float]]
    former_server: str
    own: Moment | None = None
    """The last sample of this server, where a series changes servers."""

    @property
    def has_changed_server(self) -> bool:
        return self.before is not None and self.former_server != self.timeline.server

    def count(self, resets: frozenset[float] | set[float]) -> tuple[float | None, Moment, float, bool]:
        """Where counting began, the last sample, how much was counted, and whether it began anew."""
        start, last = (None, None) if self.before is None else (self.before.at, self.before)
        amount, is_reset = 0.0, False
        for at, value in self.new:
            if last is None:
                start = at if len(self.new) > 1 else None
            elif value >= last.value and at not in resets:
                amount += value - last.value
            elif last is self.before and self._is_behind(value):
                continue
            else:
                amount, is_reset = amount + value, True
            last = Moment(at, value)
        assert last is not None, "a walk has samples"
        return start, last, amount, is_reset

    def _is_behind(self, value: float) -> bool:
        """Whether a lower value only means that the clocks of two servers differ."""
        return self.has_changed_server and not (self.own is not None and value < self.own.value)


@dataclass(slots=True)
class Counters:
    """The last used samples of all series of one source, for one interval."""

    _used: dict[Hashable, tuple[Moment, str]] = field(default_factory=dict)
    """With the server that it came from."""
    _seen: dict[tuple[Hashable, str], Moment] = field(default_factory=dict)
    """The last sample of each server of a pair, used or not."""
    _scrapes: dict[Endpoint, dict[float, float]] = field(default_factory=dict)
    """The newest scrapes of each endpoint: moment, and the moment of the one before."""

    def enter(self, timelines: Iterable[Timeline], end: float) -> list[Counted]:
        """What was counted by ``end`` and never before.

        Samples must not lie after ``end``. Series without a new sample are not in the answer.
        """
        # All walks before any count: what a series began with is told by the scrapes of others.
        walks = [walk for same in _by_series(timelines) if (walk := self._walk(same)) is not None]
        falls = _falls(walks)
        counted = [self._count(walk, falls) for walk in walks]
        self._forget(end - FORGET_S)
        return counted

    def pace(self, endpoint: Endpoint) -> tuple[float, float] | None:
        """When an endpoint was last scraped, and how many seconds after the time before."""
        scrapes = self._scrapes.get(endpoint)
        if not scrapes:
            return None
        newest = max(scrapes)
        return newest, newest - scrapes[newest]

    def _walk(self, same: Sequence[Timeline]) -> _Walk | None:
        series = same[0].series
        used, server = self._used.get(series, (None, ""))
        if used is not None and used.at < same[0].asked_since:
            used = None  # what was counted while nobody asked is nobody's evidence
        chosen = _choose(same, used, server)
        own = self._seen.get((series, chosen.server))
        for each in same:
            if each.server and each.samples:
                self._seen[series, each.server] = Moment(*each.samples[-1])
        before = used if used is not None else _baseline(chosen)
        new = [each for each in chosen.samples if before is None or each[0] > before.at]
        if used is None and before is not None:
            server = chosen.server
            self._used[series] = (before, server)
        earlier = used.at if used is not None and server == chosen.server else None
        self._note_scrapes(chosen.lane.endpoint, earlier, chosen.samples if used is None else new)
        return _Walk(chosen, before, new, server, own) if new else None

    def _note_scrapes(
        self, endpoint: Endpoint, earlier: float | None, samples: Sequence[tuple[float, float]]
    ) -> None:
        scrapes = self._scrapes.setdefault(endpoint, {})
        for at, _ in samples:
            if earlier is not None:
                scrapes[at] = max(earlier, scrapes.get(at, earlier))
            earlier = at

    def _count(self, walk: _Walk, falls: Mapping[Lane, set[float]]) -> Counted:
        timeline = walk.timeline
        if walk.before is None:
            walk.before, walk.former_server = self._birth(walk), timeline.server
        start, last, amount, is_reset = walk.count(falls.get(timeline.lane, frozenset()))
        is_unmoved = last is walk.before
        self._used[timeline.series] = (last, walk.former_server if is_unmoved else timeline.server)
        return Counted(timeline.series, timeline.lane, start, last.at, amount, is_reset)

    def _birth(self, walk: _Walk) -> Moment | None:
        """The scrape before the series appeared, when it was 0."""
        timeline = walk.timeline
        earlier = self._scrapes.get(timeline.lane.endpoint, {}).get(walk.new[0][0])
        return None if earlier is None or earlier < timeline.asked_since else Moment(earlier, 0.0)

    def _forget(self, oldest: float) -> None:
        for scrapes in self._scrapes.values():
            while len(scrapes) > SCRAPES_KEPT:
                del scrapes[min(scrapes)]
        if any(used.at < oldest for used, _ in self._used.values()):
            self._used = {series: each for series, each in self._used.items() if each[0].at >= oldest}
            self._seen = {key: seen for key, seen in self._seen.items() if key[0] in self._used}
            self._scrapes = {name: of for name, of in self._scrapes.items() if of and max(of) >= oldest}


def _by_series(timelines: Iterable[Timeline]) -> Iterable[list[Timeline]]:
    found: dict[Hashable, list[Timeline]] = defaultdict(list)
    for each in timelines:
        if each.samples:
            found[each.series].append(each)
    return found.values()


def _choose(same: Sequence[Timeline], used: Moment | None, server: str) -> Timeline:
    """The server to follow: the one followed so far while it has news, else the one that is ahead."""
    if len(same) == 1:
        return same[0]
    for each in same:
        if used is not None and each.server == server and each.samples[-1][0] > used.at:
            return each
    return max(same, key=lambda each: each.samples[-1][0])


def _baseline(timeline: Timeline) -> Moment | None:
    """The newest sample that lies before what is of interest."""
    earlier = [each for each in timeline.samples if each[0] <= timeline.count_from]
    return Moment(*earlier[-1]) if earlier else None


def _falls(walks: Iterable[_Walk]) -> dict[Lane, set[float]]:
    """The moments at which some series of a lane had begun anew."""
    found: dict[Lane, set[float]] = defaultdict(set)
    for walk in walks:
        before = None if walk.has_changed_server else walk.before
        last = None if before is None else before.value
        for at, value in walk.new:
            if last is not None and value < last:
                found[walk.timeline.lane].add(at)
            last = value
    return found
