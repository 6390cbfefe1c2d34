"""What arrived, by the tick it arrived in. Pure: the caller says when.

An event belongs to the tick in which it becomes known here, so every event lies in exactly one tick, however
late it comes and whatever the sender's clock says::

    exports          |‾‾‾‾‾‾a‾‾‾‾‾‾|‾‾‾‾‾‾b‾‾‾‾‾‾|        each counts the time since the one before
    arrivals                       a'             b'
    ticks          ├────────────┼────────────┼────────────┤
                                     a               b

Its time still matters: a tick's sample begins where its earliest event may lie, unless that is no further
back than the source is allowed to lag, plus the length of a tick (an export as long as a tick reaches no
further). So an increment that spans a weight change is dropped by the judge, as it is for other sources.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from domain.clock import tick_floor
from domain.signal import Quality
from streams.pollers.otlp_count import Count, Origin
from streams.pollers.otlp_histograms import Histogram, sum_of

SKEW_S = 5.0
"""How far a sender's clock may be ahead of ours; the same limit that the judge sets for ends."""
REACH_S = 600.0
"""Events older than this are no evidence for what runs now: they are refused, and their arm is partial."""
GONE_S = 60.0
"""An instance that was silent for this long is taken to be gone; until then its arm is partial."""
DORMANT_S = 60.0
"""Unasked for longer than this (and ten intervals), a book begins anew."""


@dataclass(slots=True)
class Cell:
    """What one instance counted in one tick."""

    start: float = math.inf
    total: float = 0.0
    bad: float = 0.0
    latencies: Histogram | None = None
    has_mixed_edges: bool = False
    counted: bool = False
    """Whether anything but first readings came."""
    is_first: bool = False
    quality: Quality = Quality.WHOLE

    def add(self, count: Count) -> None:
        """One more increment."""
        if count.quality & Quality.FIRST:
            self.is_first = True
            return
        self.counted = True
        self.quality |= count.quality
        self.total += count.total
        self.bad += count.bad
        self.start = min(self.start, count.start)
        if count.latencies is not None and count.total:
            both = count.latencies if self.latencies is None else sum_of(self.latencies, count.latencies)
            self.latencies, self.has_mixed_edges = both, self.has_mixed_edges or both is None

    def join(self, other: Cell) -> None:
        """What the same instance counted in another part of the tick."""
        self.is_first |= other.is_first
        self.quality |= other.quality
        if other.counted:
            whole = Count(
                origin=_NOBODY,
                start=other.start,
                time=other.start,
                total=other.total,
                bad=other.bad,
                latencies=other.latencies,
                quality=other.quality,
            )
            self.add(whole)
            self.has_mixed_edges |= other.has_mixed_edges


_NOBODY = Origin("", "", "", "")


class Tick(NamedTuple):
    """Everything that arrived in ``[start, end)``."""

    start: float
    end: float
    quality: Quality
    cells: dict[Origin, Cell]
    newest: dict[Origin, float]
    """When each instance's newest datum is from, as far as it is not gone."""
    grace_s: float
    """How long an instance may be silent and still be whole."""


@dataclass(slots=True)
class Book:
    """The counts of one source and interval that are in no tick yet."""

    interval_s: float
    lateness_s: float
    end: float | None = None
    asked: float = 0.0
    has_lost: bool = False
    """Whether something was lost of which nobody knows whose it was."""
    _cells: dict[float, dict[Origin, Cell]] = field(default_factory=dict)
    _newest: dict[Origin, float] = field(default_factory=dict)

    @property
    def reach_s(self) -> float:
        """How far before a tick its events may lie without its sample saying so."""
        return self.interval_s + self.lateness_s

    def add(self, count: Count, now: float) -> None:
        """Note what arrived at ``now``; its times are believed as far as they can be true."""
        origin = count.origin
        if count.is_sign_of_life:
            if origin in self._newest:
                self._newest[origin] = max(self._newest[origin], min(count.time, now))
            return
        cells = self._cells.setdefault(tick_floor(now, self.interval_s), {})
        cell = cells.get(origin)
        if cell is None:
            cell = cells[origin] = Cell()
        cell.add(count)
        if now + SKEW_S < count.time < math.inf:
            cell.quality |= Quality.INEXACT
        self._newest[origin] = max(self._newest.get(origin, 0.0), min(count.time, now))

    def spoil(self, origin: Origin, now: float) -> None:
        """Something of this instance was refused."""
        cell = self._cells.setdefault(tick_floor(now, self.interval_s), {}).setdefault(origin, Cell())
        cell.quality |= Quality.PARTIAL

    def close(self, end: float) -> Tick | None:
        """The tick that ends at ``end``, with all that arrived before; ``None`` if that is no new end."""
        if self.end is not None and self.end >= end:
            return None
        last, self.end, self.asked = self.end, end, end
        cells: dict[Origin, Cell] = defaultdict(Cell)
        for began in sorted(each for each in self._cells if each < end):
            for origin, cell in self._cells.pop(began).items():
                cells[origin].join(cell)
        quality = Quality.PARTIAL if self.has_lost else Quality.WHOLE
        self.has_lost = False
        start = end - self.interval_s if last is None else last
        if last is None:
            quality |= Quality.FIRST
        grace = self.lateness_s + 3 * self.interval_s
        self._newest = {
            origin: newest for origin, newest in self._newest.items() if end - newest < grace + GONE_S
        }
        return Tick(start, end, quality, dict(cells), dict(self._newest), grace)
