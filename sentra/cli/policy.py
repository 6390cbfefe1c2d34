"""``sentra policy``: policies before they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domain.errors import PolicyError
from domain.policy import Policy
from domain.policy_text import parse_policy
from domain.units import bp_text, duration_text
from sentra.cli.output import Output, OutputOption, console, show_json, show_table

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
    output: OutputOption = Output.TEXT,
) -> None:
    """Check a policy, and show what it means with every default filled in."""
    policy = read_policy(file)
    if output is Output.JSON:
        show_json({"valid": True, "version": policy.version, "policy": policy})
        return
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
