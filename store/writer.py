"""One writer that stores many records in one transaction, off the event loop.

Theory of operation. `put` queues records and returns; a task collects what came in within a tenth of a
second, or a thousand rows, and stores it in a thread of its own. `flush` returns when everything put before
is stored; whoever reads the log acknowledges after that and never before.

Rule: nothing that was put is lost or stored twice. While the database is away the records stay, in order, at
the head of the queue; the task tries again and again, each failed try fails those who `flush`, so that they
can hold their acknowledgements, and `put` waits once the queue is full. A record that the database will never
take is set aside, so that it does not stop the others, and the next `flush` says so once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate

from domain.decision import Incident
from domain.errors import StoreError, StoreUnavailable
from domain.records import ActionRecord, Evaluation, EvaluationFrame, IncidentRecord, RolloutRecord
from store.batch import Batch
from store.repository import Repository

Writable = EvaluationFrame | Evaluation | ActionRecord | Incident | IncidentRecord | RolloutRecord
"""What may be put."""

LINGER_S = 0.1
"""How long a record waits for company: ten transactions a second at most, and nobody sees the difference."""

BATCH_ROWS = 1000
"""Where more rows per transaction no longer mean more rows per second."""

QUEUE_ROWS = 20_000
"""Some minutes of a thousand rollouts; then `put` waits, and the log keeps what comes."""

RETRY_FIRST_S, RETRY_LONGEST_S = 0.1, 2.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class WriterStats:
    """What the writer has done since it began, in rows and transactions."""

    stored: int = 0
    """Rows that left the queue into the database, those it held already included."""
    fenced: int = 0
    """Evaluations dropped because their owner was deposed."""
    rejected: int = 0
    """Records that the database will never take."""
    transactions: int = 0
    failures: int = 0
    """Tries that found the database away."""


class BatchWriter:
    """Stores records through ``repository``. Belongs to one event loop; use as an async context manager."""

    def __init__(
        self,
        repository: Repository,
        *,
        linger_s: float = LINGER_S,
        batch_rows: int = BATCH_ROWS,
        queue_rows: int = QUEUE_ROWS,
    ) -> None:
        self._repository = repository
        self._linger_s, self._batch_rows, self._queue_rows = linger_s, batch_rows, queue_rows
        self._queue: deque[Writable] = deque()
        self._rows = 0
        self._settled = 0  # records that left the queue since the beginning
        self._changed = asyncio.Condition()
        self._flushing = 0
        self._is_closing = False
        self._error: StoreUnavailable | None = None
        self._rejections: list[str] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._task: asyncio.Task[None] | None = None
        self.stats = WriterStats()

    async def __aenter__(self) -> BatchWriter:
        self._task = asyncio.create_task(self._run(), name="store writer")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def queued_rows(self) -> int:
        """Rows that are not stored yet."""
        return self._rows

    async def put(self, *records: Writable) -> None:
        """Queue ``records``, in order. Waits while the queue is full; raises once the writer is closed."""
        for record in records:
            async with self._changed:
                await self._changed.wait_for(lambda: self._rows < self._queue_rows or self._is_closing)
                if self._is_closing:
                    raise StoreError("the store's writer is closed; nothing more is taken")
                self._queue.append(record)
                self._rows += _rows(record)
                self._changed.notify_all()

    async def flush(self) -> None:
        """Return when everything put before is stored.

        Raises
        ------
        StoreUnavailable
            The database did not take it just now. It stays queued: flush again, do not put again.
        StoreError
            The database will never take some of it. That is set aside and named in the log.
        """
        async with self._changed:
            goal, failures = self._settled + len(self._queue), self.stats.failures
            self._flushing += 1
            self._changed.notify_all()
            try:
                await self._changed.wait_for(lambda: self._settled >= goal or self.stats.failures > failures)
            finally:
                self._flushing -= 1
            if self._rejections:
                refused, self._rejections = self._rejections, []
                raise StoreError(f"{len(refused)} records were refused for good; the first: {refused[0]}")
            if self._settled < goal and self._error is not None:
                raise self._error

    async def aclose(self) -> None:
        """Store what is queued, if the database takes it now, and stop."""
        async with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    # --- the task

    async def _run(self) -> None:
        pause = RETRY_FIRST_S
        while records := await self._next_batch():
            try:
                await self._store(records)
                pause = RETRY_FIRST_S
            except StoreUnavailable as exc:
                await self._note_failure(exc)
                if self._is_closing:
                    return
                await self._wait(pause, lambda: self._is_closing)
                pause = min(pause * 2, RETRY_LONGEST_S)

    async def _next_batch(self) -> list[Writable]:
        """The head of the queue, in good company; empty when closing and all is done."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._queue) or self._is_closing)
        await self._wait(
            self._linger_s,
            lambda: self._rows >= self._batch_rows or bool(self._flushing) or self._is_closing,
        )
        sums = accumulate(map(_rows, self._queue))
        return [
            record
            for record, rows in zip(self._queue, sums, strict=True)
            if rows - _rows(record) < self._batch_rows
        ]

    async def _wait(self, seconds: float, until: Callable[[], bool]) -> None:
        """Until ``until`` is true, ``seconds`` at most."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(until)
        except TimeoutError:
            return

    async def _store(self, records: list[Writable]) -> None:
        try:
            await self._store_together(records)
        except StoreUnavailable:
            raise
        except Exception:  # whatever is wrong with one of them must not stop the others
            for record in records:
                await self._store_alone(record)

    async def _store_alone(self, record: Writable) -> None:
        try:
            await self._store_together([record])
        except StoreUnavailable:
            raise
        except Exception as exc:
            _log.exception("a record was refused for good and set aside: %r", record)
            self._rejections.append(str(exc))
            self.stats.rejected += 1
            await self._settle([record])

    async def _store_together(self, records: list[Writable]) -> None:
        batch = batch_of(records)
        loop = asyncio.get_running_loop()
        written = await loop.run_in_executor(self._thread, self._repository.write, batch)
        self.stats.transactions += 1
        self.stats.fenced += written.fenced
        self.stats.stored += sum(map(_rows, records))
        await self._settle(records)

    async def _settle(self, records: list[Writable]) -> None:
        async with self._changed:
            for record in records:
                self._queue.popleft()
                self._rows -= _rows(record)
            self._settled += len(records)
            self._error = None
            self._changed.notify_all()

    async def _note_failure(self, exc: StoreUnavailable) -> None:
        if self._error is None:
            _log.warning("%s (%d rows wait)", exc, self._rows)
        async with self._changed:
            self._error = exc
            self.stats.failures += 1
            self._changed.notify_all()


def _rows(record: Writable) -> int:
    return max(1, len(record.evaluations)) if isinstance(record, EvaluationFrame) else 1


def batch_of(records: Sequence[Writable]) -> Batch:
    """``records`` sorted by kind, each kind in its order."""
    frames: list[EvaluationFrame] = []
    evaluations: list[Evaluation] = []
    actions: list[ActionRecord] = []
    incidents: list[Incident] = []
    rollouts: list[RolloutRecord] = []
    for record in records:
        match record:
            case EvaluationFrame():
                frames.append(record)
            case Evaluation():
                evaluations.append(record)
            case ActionRecord():
                actions.append(record)
            case Incident():
                incidents.append(record)
            case IncidentRecord():
                incidents.append(record.incident)
            case RolloutRecord():
                rollouts.append(record)
    return Batch(
        frames=tuple(frames),
        evaluations=tuple(evaluations),
        actions=tuple(actions),
        incidents=tuple(incidents),
        rollouts=tuple(rollouts),
    )
