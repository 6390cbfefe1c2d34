"""Whether a rollout may be started: its traffic, where known, has to be able to decide every step in time."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from domain.policy import JudgeName
from domain.rollout import RolloutSpec
from scorers.evidence.plan import decides, plan_of
from scorers.evidence.plan_search import proposals
from scorers.evidence.plan_values import Known
from sentra.cli.exits import Rejected
from sentra.cli.policy_plan import refusal, says_weights


def admitted(
    spec: RolloutSpec, rps: float | None, policy_file: Path, *, accept_undecidable: bool
) -> RolloutSpec:
    """``spec``, with the steps that will probably hold where that was accepted.

    The traffic is ``rps``, or else what was learnt of the service; unknown traffic is admitted. Raises
    :class:`Rejected` with a plan that decides.
    """
    if rps is None and spec.calibration is not None:
        rps = spec.calibration.rps
    if rps is None or spec.policy.judge is not JudgeName.EVIDENCE:
        return spec
    known = Known(rps, spec.calibration)
    if decides(spec.policy, known):
        return spec
    plan = plan_of(spec.policy, known)
    if accept_undecidable:
        return replace(spec, undecidable=tuple(step.step for step in plan.undecidable))
    found = proposals(spec.policy, known)
    sentence = refusal(plan, found, in_weights=says_weights(policy_file))
    raise Rejected(f"{policy_file}: {sentence}; --accept-undecidable starts it as it is")
