"""What people and programs see of a plan: whether a policy's traffic can decide its steps, and how soon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from domain.errors import PolicyError
from domain.policy import Gate, Policy
from domain.policy_text import parse_limit
from domain.signal import Shape
from domain.units import bp_text, duration_text, ratio_text
from scorers.evidence.plan import RATIOS
from scorers.evidence.plan_search import Proposal
from scorers.evidence.plan_values import GatePlan, Origin, Plan, StepPlan, Times, sought_s
from sentra.cli.output import console, show_table

ORIGINS = {
    Origin.HISTORY: "learnt",
    Origin.GIVEN: "given",
    Origin.ASSUMED: "assumed: a fifth of the limit",
}


def healthy_rates(texts: Sequence[str], policy: Policy) -> dict[str, float]:
    """The rates in ``--healthy-rate``: ``0.1%`` for every gate, ``error_rate=0.1%`` for one signal.

    Raises :class:`PolicyError` for what is no share, and for signals that no gate names.
    """
    rates = {}
    for text in texts:
        signal, _, share = text.rpartition("=")
        if signal and signal not in policy.signals():
            known = ", ".join(policy.signals())
            raise PolicyError(f"--healthy-rate names {signal!r}, but gates are on {known}")
        try:
            rates[signal] = parse_limit(share, shape=Shape.RATIO, sign="=")
        except ValueError as exc:
            raise PolicyError(f"--healthy-rate: expected a share such as 0.1%, got {text!r}") from exc
    return rates


def says_weights(path: Path) -> bool:
    """Whether a valid policy's file says ``weights`` (totals), not ``steps`` (shares added)."""
    return "weights" in yaml.safe_load(path.read_text(encoding="utf-8"))


def show_plan(plan: Plan) -> None:
    """The table, one row per step, and what it rests on."""
    console.print(f"plan     {_pace(plan.known.rps)} requests/s; tier {plan.tier.value}: {plan.tier.meaning}")
    for line in _healthy_lines(plan):
        console.print(f"healthy  {line}", highlight=False)
    console.print()
    finds = [f"finds ×{ratio:g} {_first_gate(plan).title}" for ratio in RATIOS]
    columns = ("step", "weight", "canary req/s", "claim", "passes in", *finds, "verdict")
    show_table("steps", columns, [_row(plan, step) for step in plan.steps])
    console.print(
        "times are those of half and of nine tenths of rollouts, from the weight in force", style="dim"
    )
    for line in _blind_lines(plan):
        console.print(line, highlight=False, soft_wrap=True)


def refusal(plan: Plan, found: Sequence[Proposal], *, in_weights: bool) -> str:
    """Why a plan is refused, in one sentence that says what to change."""
    steps = plan.undecidable
    text = _cannot(plan, steps[0])
    if len(steps) > 1:
        text += f" (nor can {_steps_text(steps[1:])})"
    if not found:
        return f"{text}; no other weights help, and no longer time up to a day"
    ways = " or ".join(", ".join(yaml_lines(plan, each, in_weights=in_weights)) for each in found)
    return f"{text}; this decides: {ways}"


def yaml_lines(plan: Plan, proposal: Proposal, *, in_weights: bool) -> list[str]:
    """The lines of a policy that a proposal changes, in the policy's own style."""
    lines = []
    if proposal.weights_bp != plan.policy.weights_bp:
        weights = proposal.weights_bp
        added = [after - before for before, after in zip((0, *weights), weights, strict=False)]
        shares = weights if in_weights else added
        lines.append(
            f"{'weights' if in_weights else 'steps'}: [{', '.join(f'{each / 100:g}' for each in shares)}]"
        )
    if proposal.max_step_time_s != plan.policy.max_step_time_s:
        lines.append(f"max_step_time: {duration_text(proposal.max_step_time_s)}")
    return lines


def plan_json(plan: Plan, found: Sequence[Proposal]) -> dict[str, Any]:
    """The plan for programs; times in seconds, ``null`` where it is never, or not within the step."""
    return {
        "rps": plan.known.rps,
        "tier": plan.tier.value,
        "is_decidable": not plan.undecidable,
        "undecidable": [step.step for step in plan.undecidable],
        "steps": [_step_json(step) for step in plan.steps],
        "proposals": [
            {"weights_bp": each.weights_bp, "max_step_time_s": each.max_step_time_s} for each in found
        ],
    }


def _first_gate(plan: Plan) -> Gate:
    """The gate whose regressions the table shows."""
    return next(gate for gate in plan.policy.gates if gate.required)


def _first(step: StepPlan) -> GatePlan:
    return next(each for each in step.gates if each.gate.required)


def _healthy_lines(plan: Plan) -> list[str]:
    """What a healthy canary is taken to show; gates that share an origin share a line."""
    gates = max((step.gates for step in plan.steps), key=len)
    lines = []
    for origin, meaning in ORIGINS.items():
        shown = [f"{_title(each.gate)} {ratio_text(each.rate)}" for each in gates if each.origin is origin]
        if shown:
            lines.append(f"{', '.join(shown)} ({meaning})")
    return lines


def _title(gate: Gate) -> str:
    return gate.signal if gate.quantile is None else f"{gate.signal} > {gate.slo:g}"


def _row(plan: Plan, step: StepPlan) -> tuple[str, ...]:
    cells = (f"{step.step}", bp_text(step.weight_bp), _pace(step.canary_rps))
    if not step.gates:
        return (*cells, "", "", *("" for _ in RATIOS), "unknown: no weight tells a preview's traffic")
    slowest = step.slowest
    return (
        *cells,
        f"{_title(slowest.gate)} < {ratio_text(slowest.ceiling)}" + _multiple(slowest),
        _span(step.passes, "never"),
        *(_found(plan, _first(step), ratio) for ratio in RATIOS),
        "decides" if step.is_decidable else "cannot decide",
    )


def _multiple(gate: GatePlan) -> str:
    return f" ({gate.claim:g}× the limit)" if gate.claim > 1.0 else ""


def _found(plan: Plan, gate: GatePlan, ratio: float) -> str:
    if ratio not in gate.finds:
        return "nothing to compare with"
    return _span(gate.finds[ratio], f"not in {duration_text(sought_s(plan.policy))}")


def _span(times: Times, otherwise: str) -> str:
    about = "about " if times.is_rough else ""
    both = [otherwise if each is None else _about(each) for each in (times.typical_s, times.slow_s)]
    return otherwise if times.typical_s is None else f"{about}{both[0]} / {both[1]}"


def _pace(per_second: float) -> str:
    """
    >>> _pace(0.5), _pace(52_500.0)
    ('0.5', '52,500')
    """
    return f"{per_second:.3g}" if per_second < 1000.0 else f"{per_second:,.0f}"


def _about(seconds: float) -> str:
    """Times as exact as they deserve.

    >>> _about(62.5), _about(5003.0)
    ('1m2s', '1h23m')
    """
    return duration_text(round(seconds) if seconds < 3600.0 else 60 * round(seconds / 60.0))


def _blind_lines(plan: Plan) -> list[str]:
    """Steps that pass before they could see much: what they prove is their claim and nothing else."""
    ratio = RATIOS[0]
    compared = [step for step in plan.steps if step.gates and ratio in _first(step).finds]
    blind = [step for step in compared if _first(step).finds[ratio].slow_s is None]
    if not blind:
        return []
    what = f"a ×{ratio:g} {_first_gate(plan).title} within {duration_text(sought_s(plan.policy))}"
    return [f"{_steps_text(blind)} cannot be relied on to roll back {what}: there only the claim is proven"]


def _steps_text(steps: Sequence[StepPlan]) -> str:
    numbers = ", ".join(f"{step.step}" for step in steps)
    weights = ", ".join(bp_text(step.weight_bp) for step in steps)
    return f"step{'s' if len(steps) > 1 else ''} {numbers} ({weights})"


def _cannot(plan: Plan, step: StepPlan) -> str:
    slowest = step.slowest
    where = (
        f"step {step.step} ({bp_text(step.weight_bp)}) cannot decide at {_pace(plan.known.rps)} requests/s"
    )
    needed, allowed = step.passes.slow_s, plan.policy.max_step_time_s
    if needed is None:
        healthy = f"a healthy {_title(slowest.gate)} of {ratio_text(slowest.rate)}"
        return f"{where}: {healthy} cannot be shown to be below {ratio_text(slowest.ceiling)}"
    about = "about " if step.passes.is_rough else ""
    return (
        f"{where}: nine healthy canaries of ten need {about}{_about(needed)} "
        f"({needed * step.canary_rps:,.0f} requests) to show {_title(slowest.gate)} below "
        f"{ratio_text(slowest.ceiling)}, and max_step_time allows {duration_text(allowed)} "
        f"({allowed * step.canary_rps:,.0f})"
    )


def _step_json(step: StepPlan) -> dict[str, Any]:
    return {
        "step": step.step,
        "weight_bp": step.weight_bp,
        "canary_rps": step.canary_rps,
        "is_decidable": step.is_decidable,
        "passes": _times_json(step.passes),
        "gates": [_gate_json(each) for each in step.gates],
    }


def _gate_json(gate: GatePlan) -> dict[str, Any]:
    return {
        "gate": gate.gate.title,
        "required": gate.gate.required,
        "healthy_rate": gate.rate,
        "origin": gate.origin.value,
        "claim": gate.claim,
        "claimed_rate": gate.ceiling,
        "passes": _times_json(gate.passes),
        "finds": [{"ratio": ratio} | _times_json(times) for ratio, times in gate.finds.items()],
    }


def _times_json(times: Times) -> dict[str, Any]:
    return {"median_s": times.typical_s, "p90_s": times.slow_s, "is_rough": times.is_rough}
