"""From one answer of a source to frames: one per partition, or more where one would grow too large. Pure.

Every rollout that was asked for is named in exactly one frame's report, with samples or without; a rollout
that the source could say nothing about is named in a frame whose report has the reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from domain.errors import RecordError
from domain.records import Report, SampleFrame
from domain.signal import Channel, Sample
from streams.codec import pack_samples
from streams.pollers.base import Fetched

FRAME_BYTES = 200_000
"""About where a frame is cut: consumers' buffers are sized for 256 KiB."""

_ROW_BYTES, _EDGE_BYTES, _ROLLOUT_BYTES = 58, 16, 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """What all frames of one source and interval have in common."""

    source: str
    channel: Channel
    interval_s: float
    source_epoch: float
    partition_of: Callable[[str], int]

    def frames(self, rollout_ids: Iterable[str], fetched: Fetched) -> Iterator[tuple[int, SampleFrame]]:
        """The frames of an answer with the partition each belongs in, in a fixed order."""
        samples = _by_rollout(fetched.samples)
        groups: dict[tuple[int, str], list[str]] = defaultdict(list)
        for rollout_id in rollout_ids:
            problem = fetched.problems.get(rollout_id, "")
            groups[self.partition_of(rollout_id), problem].append(rollout_id)
        for (partition, problem), members in sorted(groups.items()):
            for frame in self._chunks(members, samples, fetched.end, problem):
                yield partition, frame

    def _chunks(
        self, members: Sequence[str], samples: dict[str, list[Sample]], end: float, problem: str
    ) -> Iterator[SampleFrame]:
        chunk: list[str] = []
        size = 0
        for rollout_id in members:
            added = _size(samples.get(rollout_id, ()))
            if chunk and size + added > FRAME_BYTES:
                yield from self._frames(chunk, samples, end, problem)
                chunk, size = [], 0
            chunk.append(rollout_id)
            size += added
        yield from self._frames(chunk, samples, end, problem)

    def _frames(
        self, members: Sequence[str], samples: dict[str, list[Sample]], end: float, problem: str
    ) -> Iterator[SampleFrame]:
        """One frame. If a row breaks a rule, one per rollout, so that only its own rollout loses the tick."""
        rows = [] if problem else [each for rollout_id in members for each in samples.get(rollout_id, ())]
        try:
            yield self._frame(members, rows, end, problem)
        except RecordError as exc:
            if len(members) == 1:
                yield self._frame(members, [], end, f"gave impossible numbers: {exc}")
                return
            for rollout_id in members:
                yield from self._frames([rollout_id], samples, end, problem)

    def _frame(self, members: Sequence[str], rows: Sequence[Sample], end: float, problem: str) -> SampleFrame:
        return pack_samples(
            rows,
            report=Report(source=self.source, end=end, rollouts=tuple(members), problem=problem),
            channel=self.channel,
            interval_s=self.interval_s,
            source_epoch=self.source_epoch,
        )


def _by_rollout(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[sample.rollout_id].append(sample)
    return found


def _size(samples: Sequence[Sample]) -> int:
    names = sum(map(len, {each.replica for each in samples}))
    return _ROLLOUT_BYTES + names + sum(_ROW_BYTES + _EDGE_BYTES * len(each.edges) for each in samples)
