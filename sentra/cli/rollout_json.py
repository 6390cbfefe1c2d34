"""A rollout as JSON for programs: the names of these keys stay. Times are seconds since the epoch, UTC."""

from __future__ import annotations

from typing import Any

from domain.policy import Policy
from domain.verdict import Score
from sentra.cli.rollout_follow import Snapshot
from sentra.cli.rollout_view import gate_of, silence
from store.queries import StoredStep


def brief_json(snapshot: Snapshot, now: float) -> dict[str, Any]:
    """A rollout as one entry of a list."""
    stored, present = snapshot.stored, snapshot.now
    spec, is_active = stored.spec, stored.is_active
    return {
        "rollout_id": spec.rollout_id,
        "service": spec.service,
        "environment": spec.environment,
        "stable": spec.stable,
        "canary": spec.canary,
        "phase": stored.phase,
        "is_active": is_active,
        "outcome": stored.outcome,
        "step": stored.step_index + 1,
        "step_count": len(spec.policy.weights_bp),
        "ordered_bp": stored.ordered_bp,
        "verified_bp": stored.verified_bp,
        "verdict": stored.verdict,
        "reason": stored.reason,
        "pause_causes": present.pause_causes,
        "waits_for": present.waits_for if is_active else "",
        "waits_for_person": present.waits_for_person,
        "eta_s": present.eta_s if is_active else None,
        "silent_s": silence(stored, now),
        "created_at": stored.created_at,
        "created_by": spec.created_by,
        "started_at": stored.started_at,
        "completed_at": stored.completed_at,
        "retry_of": spec.retry_of,
        "undecidable": spec.undecidable,
    }


def status_json(snapshot: Snapshot, now: float) -> dict[str, Any]:
    """Everything worth knowing of a rollout."""
    decision = snapshot.decision
    return brief_json(snapshot, now) | {
        "decision": None if decision is None else {"at": decision.at, "text": decision.text},
        "steps": [_step_json(step) for step in snapshot.steps],
        "gates": [_gate_json(score, snapshot.now.policy) for score in snapshot.now.scores],
        "incidents": snapshot.incidents,
        "events": snapshot.events,
    }


def _step_json(step: StoredStep) -> dict[str, Any]:
    return {
        "step": step.step_index + 1,
        "weight_bp": step.weight_bp,
        "status": step.status,
        "decision": step.decision,
        "began_at": step.began_at,
        "ended_at": step.ended_at,
        "scores": step.scores,
    }


def _gate_json(score: Score, policy: Policy) -> dict[str, Any]:
    gate = gate_of(score, policy)
    return {
        "gate": score.signal if gate is None else gate.title,
        "signal": score.signal,
        "slo": None if gate is None else gate.slo,
        "verdict": score.verdict,
        "reason": score.reason,
        "required": score.required,
        "limit": score.limit,
        "canary": score.canary_point,
        "stable": score.stable_point,
        "quantile_ms": score.quantile_ms,
        "canary_samples": score.canary_exposure,
        "stable_samples": score.stable_exposure,
    }
