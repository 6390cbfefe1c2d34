"""How a partition's folds come back: from the owner's own records on the log, or else from the database.

The order in which inputs of several topics were folded cannot be found out again from those topics; it is in
the evaluation records, which were written before anything followed from them. So recovery reads checkpoints,
folds the evaluations after them again, takes over the input offsets that these contain, and only then are
inputs read. Where the log is empty (the embedded broker keeps nothing) the database's copy of the same
records does; offsets are then those of another log, and nothing is known of them.

A new owner first writes an empty frame with its epoch: whatever an older owner, frozen meanwhile, still
writes behind that mark is recognised by its epoch and left out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from domain.errors import RecordError
from domain.records import Checkpoint, Evaluation, EvaluationFrame, RestartInput
from domain.rollout import RolloutFold
from scorers.fold import is_over
from scorers.replay import refold
from streams.bus import Bus
from streams.codec import Record, decode
from streams.topics import EVALUATIONS, STATE


class Memory(Protocol):
    """The database, as far as recovery needs it. Methods may block and raise ``StoreUnavailable``."""

    def unfinished(self) -> list[str]:
        """Rollouts that are not over, by id."""
        ...

    def restore(self, rollout_id: str) -> tuple[RolloutFold, list[Evaluation]] | None:
        """The last stored fold and the evaluations after it."""
        ...

    def floors(self, rollout_id: str, now: float) -> RestartInput:
        """What the actuation journal knows: identities in use and the weight last seen in force."""
        ...


@dataclass(slots=True)
class Recovered:
    """What the log holds of a partition."""

    folds: dict[str, RolloutFold] = field(default_factory=dict)
    evaluations: dict[str, list[Evaluation]] = field(default_factory=dict)
    """What was folded again after each rollout's checkpoint: its decisions may not have been published."""
    resume: dict[str, int] = field(default_factory=dict)
    """By topic, the first input offset that is not contained."""


async def from_log(bus: Bus, partition: int) -> Recovered:
    """Fold a partition's own records again. The new owner's mark is on the log already."""
    checkpoints = await _checkpoints(bus, partition)
    live = [each for each in checkpoints.values() if not is_over(each.fold)]
    start = min((each.evaluations_offset for each in live), default=0 if not checkpoints else None)
    recovered = Recovered(folds={key: each.fold for key, each in checkpoints.items()})
    if start is None:
        # Everything ended. What comes after the newest checkpoint's floor still tells the input offsets.
        start = max(each.evaluations_offset for each in checkpoints.values())
    # What older owners wrote before these checkpoints is contained in them; after them, it does not count.
    epoch = min((each.owner_epoch for each in live), default=0)
    async with aclosing(_frames(bus, partition, start, epoch)) as frames:
        async for frame in frames:
            recovered.resume.update(frame.resume)
            for evaluation in frame.evaluations:
                _take(recovered, evaluation)
    return recovered


async def _checkpoints(bus: Bus, partition: int) -> dict[str, Checkpoint]:
    """The newest checkpoint of each rollout."""
    newest: dict[str, Checkpoint] = {}
    async with aclosing(bus.read_to_barrier(STATE.name, partition, 0)) as records:
        async for record in records:
            rollout_id = (record.key or b"").decode()
            if not record.value:
                newest.pop(rollout_id, None)
                continue
            found = _readable(Checkpoint, record.value)
            if found is not None and _age(found) >= _age(newest.get(rollout_id)):
                newest[rollout_id] = found
    return newest


def _age(checkpoint: Checkpoint | None) -> tuple[int, int]:
    """Whoever takes over writes checkpoints of its own, so those of later owners count before later folds."""
    return (-1, -1) if checkpoint is None else (checkpoint.owner_epoch, checkpoint.fold.state.seq)


async def _frames(bus: Bus, partition: int, start: int, epoch: int) -> AsyncGenerator[EvaluationFrame, None]:
    """Evaluation frames from ``start`` on, without those of owners that were replaced before writing them.

    ``epoch`` is that of the first owner who counts.
    """
    async with aclosing(bus.read_to_barrier(EVALUATIONS.name, partition, start)) as records:
        async for record in records:
            frame = _readable(EvaluationFrame, record.value)
            if frame is None or frame.owner_epoch < epoch:
                continue
            epoch = frame.owner_epoch
            yield frame


def _readable(kind: type[Record], value: bytes) -> Record | None:
    """Our own records can be spoilt by somebody else; the others still count."""
    try:
        return decode(kind, value)
    except RecordError:
        return None


def _take(recovered: Recovered, evaluation: Evaluation) -> None:
    """Fold one stored evaluation again, if the checkpoint does not contain it."""
    rollout_id = evaluation.rollout_id
    before = recovered.folds.get(rollout_id)
    if before is not None and evaluation.seq <= before.state.seq:
        return
    if before is None and evaluation.fold is not None:
        folded = evaluation.fold
    elif before is None:
        return
    else:
        folded = refold(before, evaluation).fold
    recovered.folds[rollout_id] = folded
    recovered.evaluations.setdefault(rollout_id, []).append(evaluation)


def from_database(memory: Memory, rollout_id: str) -> RolloutFold | None:
    """A rollout's fold from its stored evaluations; ``None`` when the database has none."""
    found = memory.restore(rollout_id)
    if found is None:
        return None
    before, later = found
    for evaluation in later:
        before = refold(before, evaluation).fold
    return before
