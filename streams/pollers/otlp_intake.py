"""Where OTLP messages of one receiver go: counted once, and noted in every book that wants them.

The HTTP receiver and the Kafka consumer share all of it. Requests that were taken before are known by their
bytes: a sender that did not hear our answer sends the very same ones again.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from hashlib import blake2b
from typing import assert_never

from domain.errors import RecordError
from domain.signal import Channel
from streams.pollers.otlp_book import DORMANT_S, REACH_S, Book
from streams.pollers.otlp_config import OtlpMapping
from streams.pollers.otlp_count import NANOS, Count, Taken
from streams.pollers.otlp_events import read_logs, read_traces
from streams.pollers.otlp_messages import decode_request
from streams.pollers.otlp_metrics import Alive, conventions_of, read_metrics
from streams.pollers.otlp_streams import Streams

KNOWN_REQUESTS = 20_000
KNOWN_S = 600.0
"""Requests that are known again, by number and age: collectors try for five minutes by default."""
SWEEP_S = 60.0


class Intake:
    """Takes what senders send, and keeps the books of the sources it feeds.

    ``seen`` counts what happened to requests: ``taken``, ``repeated``, ``unreadable``, ``rejected`` items.
    """

    def __init__(self, mapping: OtlpMapping, born: float) -> None:
        self._mapping = mapping
        self._conventions = conventions_of(mapping)
        self._streams = Streams(born, mapping.max_series, mapping.max_services)
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._books: dict[Channel, dict[tuple[str, float], Book]] = {channel: {} for channel in Channel}
        self._swept = born
        self.seen: Counter[str] = Counter()

    def take(self, channel: Channel, body: bytes, media: str, now: float) -> Taken:
        """Count one request, all of it or nothing.

        Raises
        ------
        RecordError
            When it cannot be read; nothing of it was counted.
        """
        digest = blake2b(body, digest_size=16, key=channel.value.encode()).digest()
        if self._is_known(digest, now):
            self.seen["repeated"] += 1
            repeated = Taken([])
            repeated.note("this request was sent again; it counts once")
            return repeated
        try:
            taken = self._read(channel, body, media, now)
        except RecordError:
            self.seen["unreadable"] += 1
            raise
        self._known[digest] = now
        self._note(channel, taken, now)
        self.seen["taken"] += 1
        self.seen["rejected"] += taken.rejected
        return taken

    def lose(self, channel: Channel) -> None:
        """Something came that nobody can count: every arm may lack something."""
        for book in self._books[channel].values():
            book.has_lost = True

    def book(self, source: str, channel: Channel, interval_s: float, lateness_s: float, now: float) -> Book:
        """The book of a source and interval; a new one if nobody asked for it lately."""
        books = self._books[channel]
        for key, each in list(books.items()):
            if now - each.asked > max(DORMANT_S, 10 * each.interval_s):
                del books[key]
        key = (source, interval_s)
        if key not in books:
            books[key] = Book(interval_s, lateness_s, asked=now)
        return books[key]

    def _is_known(self, digest: bytes, now: float) -> bool:
        while self._known and (
            len(self._known) > KNOWN_REQUESTS or now - next(iter(self._known.values())) > KNOWN_S
        ):
            self._known.popitem(last=False)
        return digest in self._known

    def _read(self, channel: Channel, body: bytes, media: str, now: float) -> Taken:
        request = decode_request(channel, body, media)
        taken = Taken([])
        match channel:
            case Channel.METRICS:
                self._read_metrics(request, taken, now)
            case Channel.LOGS:
                read_logs(request, self._mapping, taken)
            case Channel.TRACES:
                read_traces(request, self._mapping, taken)
            case _:
                assert_never(channel)
        return taken

    def _read_metrics(self, request: object, taken: Taken, now: float) -> None:
        found = list(read_metrics(request, self._mapping, self._conventions, taken))
        points = [each for each in found if not isinstance(each, Alive)]
        # The newest convention first: it says which of the others count the same requests.
        for point in sorted(points, key=lambda each: each.convention.rank):
            self._streams.take(point, now, taken)
        for each in found:
            if isinstance(each, Alive):
                at = each.time / NANOS
                taken.counts.append(Count(origin=each.origin, start=at, time=at, is_sign_of_life=True))
        if now - self._swept > SWEEP_S:
            self._swept = now
            self._streams.forget(now)

    def _note(self, channel: Channel, taken: Taken, now: float) -> None:
        books = self._books[channel].values()
        for count in taken.counts:
            if count.time < now - REACH_S:
                items = 1 if channel is Channel.METRICS else int(count.total)
                taken.refuse(
                    0 if count.is_sign_of_life else items,
                    f"what is older than {REACH_S:g} s counts no more; is the sender's clock right?",
                )
                for book in books if not count.is_sign_of_life else ():
                    book.spoil(count.origin, now)
                continue
            for book in books:
                book.add(count, now)
