"""What a partition's folds look like on the log: the write-ahead frame first, everything else after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from domain.decision import Decision, Incident
from domain.records import (
    Checkpoint,
    ClockRecord,
    DecisionRecord,
    Evaluation,
    EvaluationFrame,
    IncidentRecord,
    RolloutRecord,
)
from domain.rollout import RolloutFold
from domain.verdict import Score
from scorers.fold import Folded
from scorers.waiting import waiting_for
from streams.bus import Outgoing
from streams.codec import encode, event_headers
from streams.topics import CLOCK, DECISIONS, EVALUATIONS, INCIDENTS, ROLLOUTS, STATE

FRAME_EVALUATIONS = 200
"""Evaluations per frame, as long as they are of ordinary size."""
FRAME_BYTES = 700_000
"""A frame that grows larger is cut in halves: Kafka takes 1 MB a record by default, and evaluations that
carry the whole state (all at once, where many rollouts began together) are three times as large as others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """Who writes for a partition, and since which epoch. Readers drop what older epochs write."""

    partition: int
    owner: str
    epoch: int
    broker_epoch: str


def write_ahead(
    own: Ownership, folded: Sequence[Folded], resume: Mapping[str, int], at: float
) -> list[Outgoing]:
    """The evaluation frames of some folds. Nothing else may be published before they are acknowledged."""
    evaluations = [each.evaluation for each in folded]
    pieces = [
        evaluations[start : start + FRAME_EVALUATIONS]
        for start in range(0, len(evaluations), FRAME_EVALUATIONS)
    ] or [[]]
    values: list[bytes] = []
    for piece in pieces[:-1]:
        values += _frame_values(own, piece, {}, at)
    # Only the last piece may say that the inputs are contained: by then all pieces are written.
    values += _frame_values(own, pieces[-1], resume, at)
    return [Outgoing(topic=EVALUATIONS.name, partition=own.partition, value=value) for value in values]


def _frame_values(
    own: Ownership, evaluations: Sequence[Evaluation], resume: Mapping[str, int], at: float
) -> list[bytes]:
    """One frame, or several where one would be too large; ``resume`` is in the last."""
    frame = EvaluationFrame(
        partition=own.partition,
        owner=own.owner,
        owner_epoch=own.epoch,
        broker_epoch=own.broker_epoch,
        published_at=at,
        evaluations=tuple(evaluations),
        resume=dict(resume),
    )
    value = encode(frame)
    if len(value) <= FRAME_BYTES or len(evaluations) < 2:
        return [value]
    half = len(evaluations) // 2
    return [
        *_frame_values(own, evaluations[:half], {}, at),
        *_frame_values(own, evaluations[half:], resume, at),
    ]


def checkpoint(own: Ownership, fold: RolloutFold, evaluations_offset: int) -> Outgoing:
    """A rollout's fold, keyed by rollout."""
    record = Checkpoint(
        partition=own.partition,
        fold=fold,
        evaluations_offset=evaluations_offset,
        broker_epoch=own.broker_epoch,
        owner_epoch=own.epoch,
    )
    key = fold.spec.rollout_id.encode()
    return Outgoing(topic=STATE.name, key=key, partition=own.partition, value=encode(record))


def decision(own: Ownership, fold: RolloutFold, decided: Decision) -> Outgoing:
    """A decision with everything an actuator needs."""
    spec = fold.spec
    record = DecisionRecord(
        decision=decided,
        service=spec.service,
        environment=spec.environment,
        stable=spec.stable,
        canary=spec.canary,
        traffic=spec.policy.traffic,
        match=spec.policy.match,
        target_key=spec.target_key,
        owner=own.owner,
        owner_epoch=own.epoch,
        verify_timeout_s=spec.policy.verify_timeout_s,
        labels=spec.labels,
    )
    return _event(DECISIONS.name, spec.rollout_id, own.partition, record)


def rollout_state(own: Ownership, fold: RolloutFold, scores: tuple[Score, ...]) -> Outgoing:
    """The public state of a rollout."""
    state = fold.state
    waits_for, eta_s = waiting_for(state, fold.context, scores)
    record = RolloutRecord(
        # With the gates in force now: pollers take the bucket edges they ask for from here.
        spec=replace(fold.spec, policy=fold.context.policy),
        phase=state.phase,
        seq=state.seq,
        at=state.now,
        step_index=state.step_index,
        ordered_bp=state.ordered_bp,
        verified_bp=state.verified_bp,
        generation=state.generation,
        verdict=state.verdict,
        passes=state.passes,
        pause_causes=tuple(cause.value for cause in state.pause_causes),
        reason=state.reason,
        waits_for=waits_for,
        eta_s=eta_s,
        started_at=state.started_at,
        scores=scores,
    )
    return _event(ROLLOUTS.name, state.rollout_id, own.partition, record)


def incident(own: Ownership, fold: RolloutFold, noticed: Incident) -> Outgoing:
    """An incident with where it belongs."""
    spec = fold.spec
    record = IncidentRecord(
        incident=noticed, service=spec.service, environment=spec.environment, labels=spec.labels
    )
    return _event(INCIDENTS.name, spec.rollout_id, own.partition, record)


def clock(own: Ownership, now: float, silent: Sequence[str]) -> Outgoing:
    """The owner's time."""
    record = ClockRecord(
        partition=own.partition,
        now=now,
        silent=tuple(sorted(silent)),
        owner=own.owner,
        owner_epoch=own.epoch,
    )
    return Outgoing(
        topic=CLOCK.name, partition=own.partition, value=encode(record), headers=event_headers(record)
    )


def _event(
    topic: str, rollout_id: str, partition: int, record: DecisionRecord | RolloutRecord | IncidentRecord
) -> Outgoing:
    return Outgoing(
        topic=topic,
        key=rollout_id.encode(),
        partition=partition,
        value=encode(record),
        headers=event_headers(record),
    )
