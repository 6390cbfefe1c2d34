"""The file-tail source: lines of JSON logs, counted by version and level.

A line belongs to the tick its own timestamp lies in, as far as that can still be told::

    asked at      end=10                          end=15
    lines read    |  ts=9.8  ts=10.1  ts=7.0  |    ts=14.9  ts=9.9
    counted in    [5,10)     [10,15)  [5,10)       [10,15)  [10,15)

A line that is later than ``end`` waits for its tick. One that comes too late for its tick (before the
previous end) is counted in the present one: it is evidence, and it must be counted exactly once. A line
without a readable time, or with one more than :data:`SKEW_S` ahead, is taken to be of now.

Presence: a file that can be read is a source that is present, so a version without lines wrote none.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple

import msgspec
from pydantic import Field, field_validator

from domain.clock import Clock
from domain.errors import SourceRejected, SourceUnavailable
from domain.signal import Arm, Channel, Quality, Sample
from streams.pollers.base import Fetched, Target
from streams.pollers.config import SourceSettings, Template
from streams.pollers.tailed_files import TailedFiles

SIGNAL = "log_error_ratio"

SKEW_S = 5.0
"""How far a line's clock may be ahead of ours; the same limit that the judge sets for ends."""

DORMANT_S = 60.0
"""Unasked for longer than this (and ten intervals), an interval begins anew: what was written while nobody
asked is nobody's evidence."""


class TailSettings(SourceSettings):
    """``kind: tail``: JSON lines from files on this machine."""

    channel: ClassVar[Channel] = Channel.LOGS

    files: tuple[str, ...] = Field(min_length=1)
    """Paths or patterns (``logs/*.jsonl``)."""
    time_field: str = "ts"
    """Seconds since the epoch (or ms, µs, ns), or ISO 8601 text."""
    level_field: str = "level"
    error_levels: tuple[str, ...] = ("error", "critical", "fatal")
    version_field: str = "version"
    version: Template = "{version}"
    """The field's value for a version; may use {service}, {environment} and {version}."""
    service_field: str = ""
    """Set it when several services share version names in these files."""
    service: Template = "{service}"

    @field_validator("files", mode="before")
    @classmethod
    def _one_or_many(cls, files: Any) -> Any:
        return (files,) if isinstance(files, str) else files


class _Key(NamedTuple):
    """A version as lines name it."""

    service: str
    version: str


class _Line(NamedTuple):
    at: float | None
    key: _Key
    is_bad: bool


class TailSource:
    """Implements :class:`streams.pollers.base.Source`.

    ``unreadable`` counts the lines that were no JSON object with a version, since the start.
    """

    Settings = TailSettings
    channel = Channel.LOGS

    def __init__(self, name: str, settings: SourceSettings, clock: Clock) -> None:
        assert isinstance(settings, TailSettings)
        self.name = name
        self.freshness = settings.freshness
        self.unreadable = 0
        self._settings = settings
        self._errors = frozenset(level.lower() for level in settings.error_levels)
        self._files = TailedFiles(settings.files)
        self._books: dict[float, _Book] = {}
        self._has_read = False
        self._lock = threading.Lock()

    async def fetch(self, targets: Sequence[Target], end: float, interval_s: float) -> Fetched:
        """Read what was written since, and count the lines before ``end``."""
        tick = await asyncio.to_thread(self._read_tick, end, interval_s)
        if tick is None:
            return Fetched(end=end)
        wanted = [each for each in targets if SIGNAL in each.signals]
        return Fetched(
            end=end, samples=[self._sample(each, arm, tick, end) for each in wanted for arm in Arm]
        )

    async def close(self) -> None:
        """Close all files."""
        self._files.close()

    def _read_tick(self, end: float, interval_s: float) -> _Tick | None:
        """The lines of ``[last end, end)``; ``None`` when that is empty. In a thread: disks may hang.

        The lock is for the thread of a fetch that was given up and goes on reading.
        """
        with self._lock:
            book = self._book(end, interval_s)
            missing = self._take_in()
            if len(missing) == len(self._settings.files):
                raise SourceUnavailable(f"no such file: {', '.join(missing)}")
            if self.unreadable and not self._has_read:
                raise SourceRejected(
                    f"none of {self.unreadable} lines is a JSON object with {self._settings.version_field}"
                )
            return book.close(end, interval_s, is_partial=bool(missing))

    def _book(self, end: float, interval_s: float) -> _Book:
        """The book of an interval. Those that nobody asked for lately are forgotten, with their lines."""
        for each, book in list(self._books.items()):
            if end - book.asked > max(DORMANT_S, 10 * each):
                del self._books[each]
        if not self._books:
            self._files.skip()
        book = self._books.setdefault(interval_s, _Book())
        book.asked = end
        return book

    def _take_in(self) -> list[str]:
        """Put all new lines into all books; the patterns without a file."""
        texts, missing = self._files.read()
        lines = [line for text in texts if (line := self._parse(text)) is not None]
        self._has_read = self._has_read or bool(lines)
        for each in self._books.values():
            each.lines += lines
        return missing

    def _sample(self, target: Target, arm: Arm, tick: _Tick, end: float) -> Sample:
        settings = self._settings
        service = target.label_value(settings.service, arm) if settings.service_field else ""
        key = _Key(service, target.label_value(settings.version, arm))
        lines, bad = tick.counts.get(key, (0.0, 0.0))
        return Sample(
            rollout_id=target.rollout_id,
            signal=SIGNAL,
            arm=arm,
            start=tick.start,
            end=end,
            events=bad,
            exposure=lines,
            quality=int(tick.quality),
        )

    def _parse(self, text: bytes) -> _Line | None:
        """What is counted of a line; ``None`` for one that cannot be read (counted as that)."""
        settings = self._settings
        try:
            found = _JSON.decode(text)
            version = found[settings.version_field]
            service = found[settings.service_field] if settings.service_field else ""
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
            self.unreadable += 1
            return None
        level = str(found.get(settings.level_field, "")).lower()
        at = seconds_of(found.get(settings.time_field))
        return _Line(at, _Key(str(service), str(version)), level in self._errors)


_JSON = msgspec.json.Decoder(dict[str, Any])


def seconds_of(value: object) -> float | None:
    """Seconds since the epoch of a log line's time; ``None`` when it is none.

    Numbers may be seconds, ms, µs or ns: each unit's present-day values are a thousand times the one before.

    >>> seconds_of(1_700_000_000_500), seconds_of("2023-11-14T22:13:20.5Z"), seconds_of("noon")
    (1700000000.5, 1700000000.5, None)
    """
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    for unit in (1e17, 1e14, 1e11):
        if value > unit:
            return float(value) / (unit / 1e8)
    return float(value)


class _Tick(NamedTuple):
    """Lines and bad lines by version of ``[start, end)``."""

    start: float
    quality: Quality
    counts: Mapping[_Key, Sequence[float]]


@dataclass(slots=True)
class _Book:
    """The lines of one interval that are not counted yet."""

    end: float | None = None
    asked: float = 0.0
    lines: list[_Line] = field(default_factory=list)

    def close(self, end: float, interval_s: float, *, is_partial: bool) -> _Tick | None:
        """Count all lines that belong before ``end`` and keep the later ones. The first tick is empty."""
        if self.end is not None and self.end >= end:
            return None
        counts = self._count(end)
        start, self.end = self.end, end
        partial = Quality.PARTIAL if is_partial else Quality.WHOLE
        if start is None:
            return _Tick(end - interval_s, Quality.FIRST | partial, {})
        spans = Quality.SPANS if end - start > 1.5 * interval_s else Quality.WHOLE
        return _Tick(start, partial | spans, counts)

    def _count(self, end: float) -> dict[_Key, list[float]]:
        counts: dict[_Key, list[float]] = defaultdict(lambda: [0.0, 0.0])
        later = []
        for line in self.lines:
            if line.at is not None and end <= line.at <= end + SKEW_S:
                later.append(line)
                continue
            count = counts[line.key]
            count[0] += 1.0
            count[1] += line.is_bad
        self.lines = later
        return counts
