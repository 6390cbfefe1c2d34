"""What the series of an answer mean: raw series → timelines of counters, by version and endpoint. Pure.

The meaning of a series is worked out once and remembered by the text of its labels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from domain.errors import SourceRejected
from streams.pollers.prometheus_answers import NativeHistogram, RawSeries, labels_decoder
from streams.pollers.prometheus_book import Chunk
from streams.pollers.prometheus_counters import Lane, Timeline
from streams.pollers.prometheus_native import counts_at
from streams.pollers.prometheus_plan import ERRORS, LATENCY, Ask, Naming, Role, edge_ms
from streams.pollers.prometheus_settings import PrometheusSettings

ENDPOINT_LABELS = ("cluster", "region", "prometheus", "namespace", "job", "instance", "pod")
"""Labels that name what was scraped. Where none is there, everything counts as one endpoint."""

_MOST_MEANINGS = 500_000
"""Beyond it labels come and go faster than they can be remembered."""

Counter = tuple[str, Role | float]
"""Signal, and the counter in it: a role, or a bucket's edge in milliseconds."""

Info = Mapping[tuple[str, str], Mapping[str, str]]
"""Labels to lend, by job and instance."""


@dataclass(slots=True)
class Meaning:
    """What a series is."""

    series: Hashable
    labels: Mapping[str, str]
    endpoint: tuple[str, ...]
    lane: Lane | None
    """Unless labels of its version have to be lent."""
    server: str
    counters: tuple[Counter, ...]
    is_native: bool


class Reading(Struct, gc=False):
    """A timeline and what its increments add to. Without counters it proves that the version is there."""

    timeline: Timeline
    counters: tuple[Counter, ...]
    replica: str
    is_native: bool


@dataclass(slots=True)
class SeriesReader:
    """Reads the answers to one :class:`~streams.pollers.prometheus_plan.Ask`."""

    settings: PrometheusSettings
    ask: Ask
    _meanings: dict[bytes, Meaning | None] = field(default_factory=dict)

    def read(self, answer: Iterable[RawSeries], *, info: Info, chunk: Chunk) -> Iterator[Reading]:
        """The readings of a chunk's answer. Samples that are no finite numbers are passed over.

        Raises
        ------
        SourceRejected
            When a series is there twice with different samples.
        """
        seen: dict[tuple[Hashable, str], RawSeries] = {}
        for raw in answer:
            meaning = self._meaning(bytes(raw.metric))
            if meaning is None:
                continue
            twin = seen.setdefault((meaning.series, meaning.server), raw)
            if twin is not raw:
                _refuse_difference(twin, raw)
                continue
            lane = meaning.lane if not info else self._lane(meaning, info)
            if lane is not None:
                yield from self._timelines(raw, meaning, lane, chunk)

    def _lane(self, meaning: Meaning, info: Info) -> Lane | None:
        lent = info.get((meaning.labels.get("job", ""), meaning.labels.get("instance", "")), {})
        place = Naming(self.settings).place_of({**lent, **meaning.labels})
        return None if place is None else Lane(meaning.endpoint, place)

    def _timelines(self, raw: RawSeries, meaning: Meaning, lane: Lane, chunk: Chunk) -> Iterator[Reading]:
        replica = meaning.labels.get(self.settings.replicas, "") if self.settings.replicas else ""

        def reading(
            series: Hashable, samples: Sequence[tuple[float, float]], of: tuple[Counter, ...]
        ) -> Reading:
            timeline = Timeline(series, lane, samples, chunk.asked_since, chunk.count_from, meaning.server)
            return Reading(timeline, of, replica, meaning.is_native)

        if not meaning.is_native:
            samples = _numbers(raw.values)
            yield reading(meaning.series, samples, meaning.counters)
        elif raw.histograms:
            for counter, samples in self._native(raw.histograms, chunk.wish.limits_ms).items():
                yield reading((meaning.series, counter), samples, ((LATENCY, counter),))

    def _native(
        self, histograms: Iterable[tuple[float, NativeHistogram]], limits_ms: Sequence[float]
    ) -> dict[Role | float, list[tuple[float, float]]]:
        """A series of histograms as one series for each edge, and one of all observations."""
        unit = 1.0 if self.settings.latency_unit == "ms" else 1000.0
        found: dict[Role | float, list[tuple[float, float]]] = {}
        for at, histogram in histograms:
            count, counts = counts_at(histogram, [limit / unit for limit in limits_ms])
            if not math.isfinite(count):
                continue
            found.setdefault(Role.COUNT, []).append((at, count))
            for edge, below in counts.items():
                found.setdefault(round(edge * unit, 6), []).append((at, below))
        return found

    def _meaning(self, text: bytes) -> Meaning | None:
        try:
            return self._meanings[text]
        except KeyError:
            if len(self._meanings) > _MOST_MEANINGS:
                self._meanings.clear()
            return self._meanings.setdefault(text, self._work_out(labels_decoder.decode(text)))

    def _work_out(self, labels: dict[str, str]) -> Meaning | None:
        server = "|".join(labels.pop(name) for name in self.settings.dedup_labels if name in labels)
        uses = self.ask.uses.get(labels.get("__name__", ""), ())
        is_native = any(use.role is Role.NATIVE for use in uses)
        counters = tuple(self._counters(labels))
        if not uses or (not counters and not is_native and all(use.role is not Role.PRESENT for use in uses)):
            return None
        # Queries with other matchers may bring the same series again, to count it as something else.
        endpoint = tuple(labels.get(name, "") for name in ENDPOINT_LABELS)
        place = Naming(self.settings).place_of(labels)
        return Meaning(
            series=(self.ask.matchers, tuple(sorted(labels.items()))),
            labels=labels,
            endpoint=endpoint,
            lane=None if place is None else Lane(endpoint, place),
            server=server,
            counters=counters,
            is_native=is_native,
        )

    def _counters(self, labels: Mapping[str, str]) -> Iterator[Counter]:
        """The counters that a series adds to."""
        settings = self.settings
        for use in self.ask.uses.get(labels.get("__name__", ""), ()):
            is_failure = not settings.error_label or _is_failure(settings, labels)
            if use.role is Role.BUCKET:
                edge = edge_ms(labels.get("le", ""), settings.latency_unit)
                if edge is not None:
                    yield use.signal, edge
            elif use.signal == ERRORS and use.role is Role.TOTAL:
                yield use
                if not settings.errors and is_failure:
                    yield ERRORS, Role.BAD
            elif use.signal == ERRORS and use.role is Role.BAD:
                if is_failure:
                    yield use
            elif use.role in (Role.TOTAL, Role.BAD, Role.COUNT):
                yield use


def _numbers(values: Iterable[tuple[float, str]]) -> list[tuple[float, float]]:
    try:
        return [(at, value) for at, text in values if math.isfinite(value := float(text))]
    except ValueError as exc:
        raise SourceRejected("answered values that are no numbers") from exc


def _is_failure(settings: PrometheusSettings, labels: Mapping[str, str]) -> bool:
    return re.fullmatch(settings.error_values, labels.get(settings.error_label, "")) is not None


def _refuse_difference(one: RawSeries, other: RawSeries) -> None:
    """Some proxies merge servers and repeat a series: what differs cannot be counted, nor added up."""
    if one.values != other.values or len(one.histograms) != len(other.histograms):
        raise SourceRejected(
            "answered a series twice with different samples: name the label that differs between the servers "
            "in dedup_labels"
        )


def info_of(answer: Iterable[RawSeries]) -> dict[tuple[str, str], Mapping[str, str]]:
    """The labels that an info metric lends."""
    lent: dict[tuple[str, str], Mapping[str, str]] = {}
    for raw in answer:
        labels = labels_decoder.decode(raw.metric)
        own = {name: value for name, value in labels.items() if name != "__name__"}
        lent[labels.get("job", ""), labels.get("instance", "")] = own
    return lent
