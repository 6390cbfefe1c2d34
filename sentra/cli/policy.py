"""``sentra policy``: policies before they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domain.calibration import Calibration
from domain.errors import PolicyError
from domain.policy import JudgeName, Policy
from domain.policy_text import parse_policy
from domain.units import bp_text, duration_text
from scorers.evidence.plan import plan_of
from scorers.evidence.plan_search import Proposal, proposals
from scorers.evidence.plan_values import Known, Plan
from sentra.cli.connect import ConfigOption, calibrations_of, settings_of
from sentra.cli.exits import Rejected
from sentra.cli.output import Output, OutputOption, console, show_json, show_table
from sentra.cli.policy_plan import healthy_rates, plan_json, refusal, says_weights, show_plan, yaml_lines
from store.calibrations import Place

app = typer.Typer(help="Policies before they are used.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `check` a subcommand while it is the only one."""


def read_policy(path: Path) -> Policy:
    """The policy in a file. Raises :class:`PolicyError` that names the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise PolicyError(f"cannot read {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise PolicyError(f"cannot read {path}: it is not text in UTF-8") from exc
    try:
        return parse_policy(text)
    except PolicyError as exc:
        raise PolicyError(f"{path}: {exc}") from exc


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="the policy, as YAML")],
    rps: Annotated[
        float | None,
        typer.Option(
            help="requests per second of both versions together: whether they can decide every step"
        ),
    ] = None,
    healthy_rate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SIGNAL=]SHARE",
            help="a healthy canary's bad events: 0.1%, or error_rate=0.1%; default: a fifth of the limit",
        ),
    ] = None,
    learnt: Annotated[
        bool, typer.Option("--learnt", help="plan with what the running Sentra has learnt of the service")
    ] = False,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Check a policy, and show what it means with every default filled in.

    With `--rps` also how long each step needs at that traffic; steps that cannot decide in time are refused
    (exit code 5) with a plan that can. Example: `sentra policy check policy.yaml --rps 100`
    """
    policy = read_policy(file)
    known = _known(policy, rps, healthy_rate or [], _learnt(policy, config) if learnt else None)
    plan = None if known is None else plan_of(policy, known)
    found = proposals(policy, plan.known) if plan is not None and plan.undecidable else ()
    if output is Output.JSON:
        value = {"valid": True, "version": policy.version, "policy": policy}
        show_json(value if plan is None else value | {"plan": plan_json(plan, found)})
    else:
        _show(policy)
        console.print()
        _show_decisions(policy, plan)
    if plan is not None and plan.undecidable:
        in_weights = says_weights(file)
        if output is Output.TEXT:
            _show_proposals(plan, found, in_weights=in_weights)
        raise Rejected(f"{file}: {refusal(plan, found, in_weights=in_weights)}")


def _learnt(policy: Policy, config: Path | None) -> Calibration | None:
    place = Place(service=policy.service, environment=policy.environment, interval_s=policy.interval_s)
    newest = calibrations_of(settings_of(config)).newest(place)
    return None if newest is None else newest.calibration


def _known(
    policy: Policy, rps: float | None, healthy: list[str], calibration: Calibration | None
) -> Known | None:
    """What a plan can be made from; nothing where the traffic is unknown or another judge judges."""
    rates = healthy_rates(healthy, policy)
    if rps is None and calibration is not None:
        rps = calibration.rps
    if rps is None or policy.judge is not JudgeName.EVIDENCE:
        return None
    return Known(rps, calibration, rates)


def _show_decisions(policy: Policy, plan: Plan | None) -> None:
    if plan is not None:
        show_plan(plan)
    elif policy.judge is JudgeName.EVIDENCE:
        console.print("whether your traffic can decide these steps, and how fast: add --rps N", style="dim")
    else:
        console.print("only steps of judge: evidence can be planned from --rps", style="dim")


def _show_proposals(plan: Plan, found: tuple[Proposal, ...], *, in_weights: bool) -> None:
    """Lines ready to paste; nothing else stands in them."""
    for each in found:
        console.print("\nthis decides:")
        for line in yaml_lines(plan, each, in_weights=in_weights):
            console.print(line, markup=False, highlight=False)


def _show(policy: Policy) -> None:
    console.print(f"[green]valid[/] · version {policy.version} · {policy.service} in {policy.environment}")
    weights = " → ".join(bp_text(weight) for weight in policy.weights_bp)
    console.print(f"steps    {weights}")
    timing = (
        f"a tick every {duration_text(policy.interval_s)}, warm-up {duration_text(policy.warmup_s)}, "
        f"{policy.pass_count} passes, {duration_text(policy.min_step_time_s)} to "
        f"{duration_text(policy.max_step_time_s)} a step"
    )
    console.print(f"timing   {timing}")
    console.print(f"judge    {policy.judge.value}; fastest promotion {duration_text(_fastest(policy))}")
    rows = [
        (
            gate.title,
            _limit(gate.slo, gate.quantile, "≤"),
            _limit(gate.severe, gate.quantile, "≥"),
            duration_text(gate.window_s),
            f"{gate.min_samples}",
            f"{gate.min_events}",
            "" if gate.required else "optional",
        )
        for gate in policy.gates
    ]
    columns = ("gate", "passes at", "severe at", "window", "min samples", "min events", "")
    show_table("gates", columns, rows)


def _limit(value: float, quantile: float | None, sign: str) -> str:
    return f"{sign} {value * 100:g} %" if quantile is None else f"{sign} {value:g} ms"


def _fastest(policy: Policy) -> float:
    step = max(policy.min_step_time_s, policy.warmup_s + policy.pass_count * policy.interval_s)
    return step * len(policy.weights_bp) + policy.keep_stable_for_s
