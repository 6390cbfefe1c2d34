"""What is remembered between the ticks of one interval: since when each service is asked for, and how. Pure.

Services are asked for together, in chunks. Those that are new, or silent for long, need a longer look back
than the others and so form chunks of their own::

    known    range [last tick - overlap, end)          one or two samples a series
    new      range [end - lookback, end)               enough to see where counting begins
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from domain.signal import Arm
from streams.pollers.base import Target, edges_around
from streams.pollers.counters import Part
from streams.pollers.prometheus_counters import Counters
from streams.pollers.prometheus_plan import LATENCY, Naming, Place, needed_signals
from streams.pollers.prometheus_selectors import chunks
from streams.pollers.prometheus_settings import PrometheusSettings

OVERLAP_S = 10.0
"""How much longer than needed a range is: samples become visible some time after they were scraped."""
SHORT_S = 60.0
"""Ranges up to this are one class: their chunks stay the same from tick to tick."""
DORMANT_S = 300.0
"""A service not read for longer is new again: what was counted meanwhile is nobody's evidence."""
EDGES_S = 600.0
"""How long bucket edges are believed; a new release may bring others."""
NO_EDGES_S = 5.0
"""The same where none were found: the first scrape of a new service brings them."""

_SPARE_BYTES = 2_000
"""Room in a query for metrics, matchers and edges besides the services."""

Edges = Mapping[float, frozenset[str]]
"""Bucket edges in milliseconds, with the texts that exporters write for each (``1``, ``1.0``)."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the rollouts of one service want to know."""

    signals: frozenset[str]
    limits_ms: tuple[float, ...]
    environments: tuple[str, ...]


@dataclass(slots=True)
class Asked:
    """One scope pattern (a service) that is asked for tick by tick."""

    wish: Wish
    since: float
    """From when on its series are known."""
    last_end: float | None = None
    newest: float | None = None
    """Of its samples."""
    edges: Edges = field(default_factory=dict)
    edges_at: float | None = None
    count_from: float = -math.inf
    """Where counting begins for series that were not asked for before."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Services that share a query."""

    scopes: tuple[str, ...]
    wish: Wish
    window_s: float
    asked_since: float
    count_from: float

    def halves(self) -> tuple[Chunk, Chunk]:
        """Two smaller questions for the same."""
        middle = len(self.scopes) // 2
        return replace(self, scopes=self.scopes[:middle]), replace(self, scopes=self.scopes[middle:])


@dataclass(slots=True)
class Dues:
    """Increments whose exposure has not arrived yet, by rollout, arm, signal and replica."""

    parts: dict[tuple[str, Arm, str, str], list[Part]] = field(default_factory=dict)

    def keep(self, rollout_ids: set[str]) -> None:
        """Forget all other rollouts."""
        self.parts = {key: parts for key, parts in self.parts.items() if key[0] in rollout_ids}


@dataclass(slots=True)
class Book:
    """Everything that lasts from tick to tick at one interval."""

    settings: PrometheusSettings
    interval_s: float
    counters: Counters = field(default_factory=Counters)
    dues: Dues = field(default_factory=Dues)
    asked: dict[str, Asked] = field(default_factory=dict)
    lanes: dict[Place, dict[tuple[str, ...], float]] = field(default_factory=dict)
    """When each endpoint of a version last had a sample."""

    def note_wishes(self, targets: Iterable[Target], end: float) -> None:
        """Begin, go on with or cease to ask for services."""
        wishes = self._wishes(targets)
        self.asked = {scope: each for scope, each in self.asked.items() if scope in wishes}
        for scope, wish in wishes.items():
            known = self.asked.get(scope)
            if known is None or (known.last_end is not None and end - known.last_end > DORMANT_S):
                self.asked[scope] = Asked(
                    wish, since=end - self.settings.lookback, count_from=end - self.interval_s
                )
            elif known.wish != wish:
                self.begin_anew(scope, wish, end)

    def begin_anew(self, scope: str, wish: Wish, end: float) -> None:
        """Other series are asked for from now on: none of them is new because we did not see it before."""
        known = self.asked[scope]
        known.wish, known.since = wish, end - self.settings.lookback
        known.newest, known.count_from = None, end - self.interval_s

    def chunks(self, end: float) -> Iterator[Chunk]:
        """All that is asked for, in chunks of one class of windows, in a fixed order."""
        classes: dict[tuple[bool, bool], list[str]] = {}
        windows = {scope: self._window_s(each, end) for scope, each in sorted(self.asked.items())}
        for scope, window_s in windows.items():
            is_new = self.asked[scope].count_from > -math.inf
            classes.setdefault((is_new, window_s <= SHORT_S), []).append(scope)
        for scopes in classes.values():
            for group in chunks(scopes, _SPARE_BYTES):
                yield self.chunk_of(group, max(windows[scope] for scope in group))

    def chunk_of(self, scopes: Sequence[str], window_s: float) -> Chunk:
        """The question for ``scopes``, with all that any of them wants."""
        members = [self.asked[scope] for scope in scopes]
        wish = Wish(
            frozenset().union(*(each.wish.signals for each in members)),
            tuple(sorted({limit for each in members for limit in each.wish.limits_ms})),
            tuple(sorted({name for each in members for name in each.wish.environments})),
        )
        return Chunk(
            scopes=tuple(scopes),
            wish=wish,
            window_s=window_s,
            asked_since=max(each.since for each in members),
            count_from=max(each.count_from for each in members),
        )

    def edge_texts(self, chunk: Chunk) -> list[str] | None:
        """The ``le`` of the buckets that a chunk needs; ``None`` when all are wanted."""
        if self.settings.histogram == "full":
            return None
        texts: set[str] = set()
        for scope in chunk.scopes:
            known = self.asked[scope].edges
            for edge in edges_around(sorted(known), chunk.wish.limits_ms):
                texts |= known[edge]
        return sorted(texts)

    def needs_edges(self, chunk: Chunk, now: float) -> bool:
        """Whether the edges of some service have to be asked for."""
        if self.settings.histogram == "full" or LATENCY not in chunk.wish.signals:
            return False
        return any(_is_out_of_date(self.asked[scope], now) for scope in chunk.scopes)

    def note_edges(self, chunk: Chunk, edges: Edges, now: float, end: float) -> Chunk:
        """Remember the edges found for a chunk; the same chunk, with what follows from them."""
        for scope in chunk.scopes:
            each = self.asked[scope]
            if each.edges_at is not None and each.edges != edges:
                self.begin_anew(scope, each.wish, end)
            each.edges, each.edges_at = edges, now
        return self.chunk_of(
            chunk.scopes, max(self._window_s(self.asked[each], end) for each in chunk.scopes)
        )

    def note_answer(self, chunk: Chunk, newest: float | None, end: float) -> None:
        """A chunk was read; ``newest`` is that of the slowest endpoint in it."""
        for scope in chunk.scopes:
            each = self.asked[scope]
            each.last_end, each.count_from = end, -math.inf
            each.newest = newest if newest is not None else each.newest

    def _wishes(self, targets: Iterable[Target]) -> dict[str, Wish]:
        naming = Naming(self.settings)
        found: dict[str, list[Target]] = {}
        for target in targets:
            for scope in naming.scopes(target):
                found.setdefault(scope, []).append(target)
        return {
            scope: Wish(
                needed_signals(self.settings, {name for each in members for name in each.signals}),
                tuple(sorted({limit for each in members for limit in each.signals.get(LATENCY, ())})),
                tuple(sorted({_environment(self.settings, each) for each in members})),
            )
            for scope, members in found.items()
        }

    def _window_s(self, each: Asked, end: float) -> float:
        if each.last_end is None or each.newest is None:
            return max(self.settings.lookback, OVERLAP_S + 2 * self.interval_s)
        reach = end - min(each.last_end, each.newest) + OVERLAP_S
        # A service that fell silent is not looked for ever further back.
        return min(reach, max(self.settings.lookback, end - each.last_end + OVERLAP_S))


def _is_out_of_date(each: Asked, now: float) -> bool:
    life_s = EDGES_S if each.edges else NO_EDGES_S
    return each.edges_at is None or not 0 <= now - each.edges_at < life_s


def _environment(settings: PrometheusSettings, target: Target) -> str:
    return settings.environment.format(
        service=target.service, environment=target.environment, version=target.stable
    )
