"""Stored evaluations judged again: same inputs, same conclusions to the last bit, or a named difference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from domain.errors import RecordError
from domain.records import CommandInput, Evaluation
from domain.rollout import RolloutFold
from scorers.fold import Folded, begin, fold


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An evaluation that today's code concludes otherwise."""

    seq: int
    field: str
    stored: object
    replayed: object

    def __str__(self) -> str:
        return f"seq {self.seq}: {self.field} was {self.stored!r}, replays as {self.replayed!r}"


def refold(before: RolloutFold | None, stored: Evaluation) -> Folded:
    """Fold the input of a stored evaluation again. ``before`` is ``None`` for a rollout's first one."""
    if before is not None:
        return fold(before, stored.input)
    if not isinstance(stored.input, CommandInput):
        raise RecordError(f"seq {stored.seq} of {stored.rollout_id} is not where the rollout begins")
    return begin(stored.input.command, stored.input.now)


def replay(stored: Iterable[Evaluation], before: RolloutFold | None = None) -> Iterator[Folded]:
    """Fold stored inputs in order; what they lead to now."""
    for evaluation in stored:
        folded = refold(before, evaluation)
        yield folded
        before = folded.fold


def verify(stored: Iterable[Evaluation], before: RolloutFold | None = None) -> list[Difference]:
    """Every difference between what was concluded then and what the same inputs lead to now."""
    kept = list(stored)
    differences: list[Difference] = []
    for old, folded in zip(kept, replay(kept, before), strict=True):
        differences += _compare(old, folded.evaluation)
    return differences


def _compare(old: Evaluation, new: Evaluation) -> list[Difference]:
    """Field by field as bytes: what was stored is what counts, not what compares equal in memory."""
    return [
        Difference(seq=old.seq, field=name, stored=getattr(old, name), replayed=getattr(new, name))
        for name in Evaluation.__struct_fields__
        if msgspec.msgpack.encode(getattr(old, name)) != msgspec.msgpack.encode(getattr(new, name))
    ]
