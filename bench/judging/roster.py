"""The judges on the leaderboard: where each is found, how it is made, and how much of it a run can bear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

FIXED_SCHEDULE = "fixed"
"""The promotion of judges that only roll back: whatever lives when the schedule ends is promoted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where a judge is found and how it is made."""

    where: str
    """``module:Class``; imported only when it is asked for."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    promotion: str = FIXED_SCHEDULE
    """``module:Class`` of its :class:`~bench.judging.figures.Promotion`; skipped while there is none."""
    promotion_settings: Mapping[str, Any] = field(default_factory=dict)
    quick_most: int | None = None
    """Rollouts per cell in a quick run, for judges that are slow."""
    full_most: int | None = None
    """The same in a full run."""


def _named(name: str, where: str, **settings: Any) -> Entry:
    return Entry(where=where, settings={"name": name, **settings})


def _stepping(where: str, tier: str) -> Entry:
    """A judge whose passing verdicts move the rollout on."""
    promotion = "bench.judging.promotion:StagedPromotion"
    return Entry(where=where, promotion=promotion, promotion_settings={"tier": tier})


RULES: dict[str, Entry] = {
    "evidence": _stepping("bench.judging.evidence:Evidence", "R2"),
    "evidence_stable_only": _stepping("bench.judging.evidence:EvidenceStableOnly", "R1"),
    "evidence_cold": _stepping("bench.judging.evidence:EvidenceCold", "R0"),
    "threshold": Entry(where="bench.judging.threshold_rule:ThresholdRule"),
    "argo_limit_0": _named("argo_limit_0", "bench.judging.argo:ArgoRule", failure_limit=0),
    "argo_limit_3": _named("argo_limit_3", "bench.judging.argo:ArgoRule", failure_limit=3),
    "flagger_5": _named("flagger_5", "bench.judging.flagger:FlaggerRule", threshold=5),
    "kayenta": replace(_named("kayenta", "bench.judging.kayenta_rule:KayentaRule"), quick_most=50),
    "pipecd": _named("pipecd", "bench.judging.pipecd:PipeCDRule"),
}
"""Judges of the error gate, in the order of the table."""

LATENCY_RULES: dict[str, Entry] = {
    "evidence": Entry(where="bench.judging.latency_evidence:LatencyEvidence"),
    "evidence_stable_only": Entry(where="bench.judging.latency_evidence:LatencyEvidenceStableOnly"),
    "evidence_cold": Entry(where="bench.judging.latency_evidence:LatencyEvidenceCold"),
}
"""Judges of latencies, for the real traces."""


def missing(where: str) -> str | None:
    """Why ``module:Class`` cannot be had yet: one of both does not exist; ``None`` when it can.

    A module that is there and cannot be imported is broken, and raises what importing it raises.
    """
    module, _, name = where.partition(":")
    if find_spec(module) is None:
        return f"there is no module {module}"
    return None if hasattr(import_module(module), name) else f"there is no {name} in {module}"


def made(entry: Entry) -> Any:
    """The judge."""
    return _attribute(entry.where)(**entry.settings)


def made_promotion(entry: Entry) -> Any:
    """Its promotions; ``None`` where they are not simulated (yet) or follow the fixed schedule."""
    if entry.promotion == FIXED_SCHEDULE or missing(entry.promotion):
        return None
    return _attribute(entry.promotion)(**entry.promotion_settings)


def _attribute(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)
