"""The Prometheus source: raw counters of all rollouts from a metrics database, counted here, once per tick.

For Prometheus, VictoriaMetrics, Thanos and Mimir (or Cortex). What is asked is the raw samples since the last
ones used, for up to 250 services at once; nothing is extrapolated, so every event is counted, once, in the
first tick that ends after its scrape became visible. A tick shorter than the scrape interval therefore has no
sample most of the time and one that spans several ticks now and then: the interval of a policy should not be
shorter than that of the scrapes.

Whatever is not a whole answer is no answer: its rollouts get a problem in words, and everything else goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from domain.clock import Clock
from domain.errors import SourceError, SourceRejected
from domain.signal import Arm, Channel, Sample
from streams.pollers.base import Fetched, Target
from streams.pollers.config import SourceSettings
from streams.pollers.prometheus_answers import RawSeries, TooMuch, labels_decoder
from streams.pollers.prometheus_book import DORMANT_S, OVERLAP_S, Book, Chunk, Edges
from streams.pollers.prometheus_client import Patience, PrometheusClient, first_of
from streams.pollers.prometheus_plan import (
    Ask,
    Naming,
    Place,
    Role,
    asks_of,
    edge_ms,
    needed_signals,
    query_of,
)
from streams.pollers.prometheus_selectors import instant_query
from streams.pollers.prometheus_series import ENDPOINT_LABELS, Info, Reading, SeriesReader, info_of
from streams.pollers.prometheus_settings import PrometheusSettings
from streams.pollers.prometheus_tick import Tick

REFUSED_S = 60.0
"""A query that the server calls wrong is not sent again for so long."""

OVERDUE_SCRAPES = 2.5
"""An endpoint without a sample for so many of its own scrape intervals is overdue."""
LOST_S = 900.0
"""An endpoint without a sample for so long is not waited for any more."""
_SCRAPE_LABELS = ("job", "instance")


@dataclass(slots=True)
class _Answer:
    """What came of one chunk."""

    chunk: Chunk
    readings: list[Reading] = field(default_factory=list)
    missing: dict[str, SourceError] = field(default_factory=dict)
    """Why there is nothing of some signals, while there is something of others."""
    error: SourceError | None = None
    """Why there is nothing at all."""


class PrometheusSource:
    """Implements :class:`streams.pollers.base.Source`."""

    Settings = PrometheusSettings
    channel = Channel.METRICS

    def __init__(self, name: str, settings: SourceSettings, clock: Clock) -> None:
        assert isinstance(settings, PrometheusSettings)
        self.name = name
        self.freshness = settings.freshness
        self.settings = settings
        self.client = PrometheusClient(settings, clock)
        self._clock = clock
        self.naming = Naming(settings)
        self.readers = [SeriesReader(settings, ask) for ask in asks_of(settings)]
        self._books: dict[float, Book] = {}
        self._patience = Patience()
        self._refused: dict[tuple[str, ...], tuple[float, str]] = {}
        """By the matchers of an ask: until when it is not sent, and why."""

    async def fetch(self, targets: Sequence[Target], end: float, interval_s: float) -> Fetched:
        """Everything that became visible since the last call. See :class:`streams.pollers.base.Source`."""
        self._patience.check(self._clock.now())
        book = self._books.setdefault(interval_s, Book(self.settings, interval_s))
        book.note_wishes(targets, end)
        answers = await self._read_all(book, end)
        errors = [each.error for each in answers if each.error is not None]
        if answers and len(errors) == len(answers):
            error = first_of(errors)
            self._patience.failed(error, self._clock.now())
            raise error
        self._patience.succeeded()
        return await self._conclude(book, targets, answers, end)

    async def close(self) -> None:
        """Close all connections."""
        await self.client.close()

    # Asking.

    async def _read_all(self, book: Book, end: float) -> list[_Answer]:
        chunks = list(book.chunks(end))
        answers: list[_Answer] = []
        if self._patience.is_tried and chunks:
            # One goes ahead: a server in trouble is not asked everything at once.
            answers += await self._read(book, chunks.pop(0), end)
            if all(each.error is not None for each in answers):
                return answers
        for found in await asyncio.gather(*(self._read(book, chunk, end) for chunk in chunks)):
            answers += found
        return answers

    async def _read(self, book: Book, chunk: Chunk, end: float) -> list[_Answer]:
        """The answers of a chunk: several when it had to be asked in parts."""
        try:
            if book.needs_edges(chunk, self._clock.now()):
                edges = await self.edges_of(chunk, end, book.interval_s)
                chunk = book.note_edges(chunk, edges, self._clock.now(), end)
            return [await self._answer(book, chunk, end)]
        except TooMuch as exc:
            if len(chunk.scopes) == 1:
                return [_Answer(chunk, error=exc)]
            return [each for half in chunk.halves() for each in await self._read(book, half, end)]
        except SourceError as exc:
            return [_Answer(chunk, error=exc)]

    async def _answer(self, book: Book, chunk: Chunk, end: float) -> _Answer:
        """All that the queries of a chunk bring. One that fails costs its own signals only."""
        info = await self.info_of(chunk, end, book.interval_s)
        wanted = [reader for reader in self.readers if reader.ask.metrics(chunk.wish.signals)]
        texts = book.edge_texts(chunk)
        scope = self.naming.matchers(chunk.scopes, chunk.wish.environments)
        found = await asyncio.gather(
            *(
                self._ask(
                    reader.ask,
                    query_of(reader.ask, chunk.wish.signals, scope, texts, chunk.window_s),
                    end,
                    book.interval_s,
                )
                for reader in wanted
            ),
            return_exceptions=True,
        )
        answer = _Answer(chunk)
        for reader, raw in zip(wanted, found, strict=True):
            try:
                if isinstance(raw, BaseException):
                    raise raw
                answer.readings += reader.read(raw, info=info, chunk=chunk)
            except TooMuch:
                raise
            except SourceError as exc:
                answer.missing.update(dict.fromkeys(reader.ask.signals(chunk.wish.signals), exc))
                answer.error = exc
        if answer.missing.keys() < chunk.wish.signals:
            answer.error = None
        return answer

    async def edges_of(self, chunk: Chunk, end: float, interval_s: float) -> Edges:
        """The bucket edges of a chunk's histograms."""
        found: dict[float, set[str]] = {}
        scope = self.naming.matchers(chunk.scopes, chunk.wish.environments)
        for reader in self.readers:
            buckets = [
                metric
                for metric, uses in reader.ask.uses.items()
                if any(use.role is Role.BUCKET for use in uses)
            ]
            if not buckets:
                continue
            selector = instant_query(buckets, [*reader.ask.matchers, *scope])
            for raw in await self._ask(reader.ask, f"group by (le) ({selector})", end, interval_s):
                text = labels_decoder.decode(raw.metric).get("le", "")
                edge = edge_ms(text, self.settings.latency_unit)
                if edge is not None:
                    found.setdefault(edge, set()).add(text)
        return {edge: frozenset(texts) for edge, texts in found.items()}

    async def info_of(self, chunk: Chunk, end: float, interval_s: float) -> Info:
        """The labels that the info metric lends."""
        if not self.settings.info:
            return {}
        scope = self.naming.matchers(chunk.scopes, chunk.wish.environments)
        text = instant_query([self.settings.info], scope)
        return info_of(await self.client.query(text, end, self._timeout_s(interval_s)))

    async def _ask(self, ask: Ask, text: str, end: float, interval_s: float) -> list[RawSeries]:
        until, reason = self._refused.get(ask.matchers, (0.0, ""))
        if 0 < until - self._clock.now() <= REFUSED_S:
            raise SourceRejected(reason)
        try:
            return await self.client.query(text, end, self._timeout_s(interval_s))
        except TooMuch:
            raise
        except SourceRejected as exc:
            self._refused[ask.matchers] = (self._clock.now() + REFUSED_S, str(exc))
            raise

    def _timeout_s(self, interval_s: float) -> float:
        return min(interval_s / 2, self.settings.timeout)

    # Counting.

    async def _conclude(
        self, book: Book, targets: Sequence[Target], answers: Iterable[_Answer], end: float
    ) -> Fetched:
        readings: dict[object, Reading] = {}
        failed: dict[str, dict[str, SourceError]] = {}
        timelines = []
        for answer in answers:
            if answer.error is not None:
                answer.missing = dict.fromkeys(answer.chunk.wish.signals, answer.error)
            failed.update(dict.fromkeys(answer.chunk.scopes, answer.missing))
            self._note(book, answer, end)
            for reading in answer.readings:
                known = readings.setdefault(reading.timeline.series, reading)
                if known is reading or known.timeline.server != reading.timeline.server:
                    timelines.append(reading.timeline)
        counted = book.counters.enter(timelines, end)
        now = max(self._clock.now(), end)
        tick = Tick(self.settings, end, book.interval_s, now, book.dues, await self._silent(book, end))
        tick.enter(readings.values(), counted)
        return self._fetched(book, tick, targets, failed)

    def _note(self, book: Book, answer: _Answer, end: float) -> None:
        slowest: dict[object, float] = {}
        for reading in answer.readings:
            timeline = reading.timeline
            if timeline.samples:
                newest = timeline.samples[-1][0]
                slowest[timeline.lane] = max(newest, slowest.get(timeline.lane, newest))
                endpoints = book.lanes.setdefault(timeline.lane.place, {})
                endpoint = timeline.lane.endpoint
                assert isinstance(endpoint, tuple)
                endpoints[endpoint] = max(newest, endpoints.get(endpoint, newest))
        # What was not read in whole goes on being looked for as far back as before.
        if not answer.missing:
            book.note_answer(answer.chunk, min(slowest.values(), default=None), end)

    def _fetched(
        self,
        book: Book,
        tick: Tick,
        targets: Sequence[Target],
        failed: Mapping[str, Mapping[str, SourceError]],
    ) -> Fetched:
        samples: list[Sample] = []
        problems: dict[str, str] = {}
        for target in targets:
            missing: dict[str, SourceError] = {}
            for scope in self.naming.scopes(target):
                missing.update(failed.get(scope, {}))
            needed = needed_signals(self.settings, target.signals)
            found = [each for each in tick.samples(target) if each.signal not in missing]
            samples += found
            if not found:
                errors = [missing[name] for name in needed if name in missing]
                why = str(first_of(errors)) if errors else self._why_nothing(book, target, tick.end)
                problems[target.rollout_id] = why
        book.dues.keep({target.rollout_id for target in targets})
        return Fetched(end=tick.end, samples=samples, problems=problems)

    def _why_nothing(self, book: Book, target: Target, end: float) -> str:
        """What was looked for in vain, or how old the newest of it is."""
        if not needed_signals(self.settings, target.signals):
            return f"it is not set up to give {' or '.join(target.signals)}"
        patterns = [self.naming.pattern(target, arm) for arm in Arm]
        endpoints = [
            (newest, endpoint)
            for place, of in book.lanes.items()
            if any(pattern.holds(place) for pattern in patterns)
            for endpoint, newest in of.items()
        ]
        if endpoints:
            newest, endpoint = max(endpoints)
            pace = book.counters.pace(endpoint)
            every = f", of scrapes every {pace[1]:.0f} s" if pace else ""
            return f"no new sample: the newest is {end - newest:.1f} s old{every}"
        label = self.settings.version_label
        wanted = " or ".join(repr(pattern.version.pattern) for pattern in patterns)
        seen = sorted({place.version for place in book.lanes if place.service == patterns[0].service})
        where = (
            f"{self.settings.service_label}={patterns[0].service!r}" if self.settings.service_label else ""
        )
        if self.settings.service_label and not seen:
            return f"no series of {self.settings.requests} has {where}"
        versions = f"; seen were {', '.join(seen[:8])}" if seen and where else ""
        return f"no series of {self.settings.requests} has {label}={wanted}{versions}"

    async def _silent(self, book: Book, end: float) -> frozenset[Place]:
        """The versions with an endpoint that is still a target but could not be scraped.

        A pod that was removed is no target any more, and nothing is missing without it.
        """
        overdue = self._overdue(book, end)
        if not overdue:
            return frozenset()
        try:
            answer = await self.client.query("up == 0", end, self._timeout_s(book.interval_s))
            labels = [labels_decoder.decode(raw.metric) for raw in answer]
        except SourceError:
            return frozenset(place for place, _ in overdue)
        down = {(each.get("job", ""), each.get("instance", "")) for each in labels}
        return frozenset(place for place, target in overdue if target in down)

    def _overdue(self, book: Book, end: float) -> list[tuple[Place, tuple[str, str]]]:
        """Endpoints whose scrape has not come, by the job and instance that they are."""
        found = []
        for place, endpoints in book.lanes.items():
            for endpoint, newest in list(endpoints.items()):
                pace = book.counters.pace(endpoint)
                late_s = OVERDUE_SCRAPES * pace[1] + OVERLAP_S if pace else DORMANT_S
                if end - newest > LOST_S:
                    del endpoints[endpoint]
                elif end - newest > late_s:
                    job, instance = (endpoint[ENDPOINT_LABELS.index(name)] for name in _SCRAPE_LABELS)
                    found.append((place, (job, instance)))
        book.lanes = {place: endpoints for place, endpoints in book.lanes.items() if endpoints}
        return found
