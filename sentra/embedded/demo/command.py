"""``sentra demo``: a real canary behind a real proxy on this machine, judged from live telemetry."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table

from domain.clock import SystemClock
from domain.errors import ConfigError
from domain.policy import JudgeName, Policy
from sentra.cli.exits import Exit
from sentra.cli.output import console, notes, show_json
from sentra.embedded.demo.play import Play, play
from sentra.embedded.demo.policies import Pace
from sentra.embedded.demo.scenarios import SCENARIOS, Scenario, scenario_named
from sentra.embedded.demo.story import Story
from sentra.embedded.demo.summary import Summary, show
from sentra.embedded.demo.view import render

_NAMES = ", ".join(SCENARIOS)


def demo(
    scenario: Annotated[
        list[str] | None, typer.Option("--scenario", "-s", help=f"which story, several if repeated: {_NAMES}")
    ] = None,
    pace: Annotated[Pace, typer.Option(help="quick: seconds; real: the times of production")] = Pace.QUICK,
    judge: Annotated[
        str | None, typer.Option(help="evidence or threshold; default: evidence, or what your policy says")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="your own policy; its traffic and telemetry are the demo's")
    ] = None,
    rps: Annotated[
        float | None,
        typer.Option(
            min=1, max=2000, help="requests per second; default: 400 for evidence, 200 for threshold"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="fixes the load generator and the faults, not the timing")] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="exactly one JSON object on standard output")
    ] = False,
    keep: Annotated[
        bool,
        typer.Option(help="keep .sentra/ in this folder: database, archive, logs; nothing stays running"),
    ] = False,
) -> int:
    """Run a rollout on this machine, with nothing installed but Python, and watch Sentra decide.

    Two versions of a small service run behind a real Envoy; users ask without pause; the canary gets 20, 40,
    70 and 100 % of the traffic as long as the evidence allows. Exit code 9: it ended otherwise than the
    scenario should.
    """
    chosen = [scenario_named(name) for name in (scenario or ["healthy"])]
    if as_json and len(chosen) > 1:
        raise ConfigError("--json prints one object, so it takes one --scenario")
    worst = Exit.OK
    for each in chosen:
        summary = _one(each, pace, _judge(judge), policy, rps, seed, keep=keep, quiet=as_json)
        if as_json:
            show_json(summary)
        else:
            show(console, summary)
            if keep:
                console.print(
                    f"[dim]kept in[/]             .sentra/demo/{summary.rollout_id}, .sentra/archive"
                )
        worst = worst if summary.is_as_expected else Exit.UNEXPECTED
    if not as_json:
        _what_next(chosen)
    return worst


def _judge(name: str | None) -> JudgeName | None:
    try:
        return JudgeName(name) if name else None
    except ValueError:
        known = ", ".join(each.value for each in JudgeName)
        raise ConfigError(f"there is no judge {name!r}; known are {known}") from None


def _one(
    scenario: Scenario,
    pace: Pace,
    judge: JudgeName | None,
    policy: Path | None,
    rps: float | None,
    seed: int,
    *,
    keep: bool,
    quiet: bool,
) -> Summary:
    began = SystemClock().now()
    with tempfile.TemporaryDirectory(prefix="sentra-demo-") as scratch:
        given = Play(
            scenario=scenario,
            pace=pace,
            rps=rps,
            seed=seed,
            judge=judge,
            policy_file=policy,
            directory=Path.cwd() if keep else Path(scratch),
            keeps=keep,
        )
        return asyncio.run(_watched(given, began, quiet))


async def _watched(given: Play, began: float, quiet: bool) -> Summary:
    """Play with a picture on a terminal, with lines elsewhere, and nothing at all when quiet."""
    task = asyncio.current_task()
    assert task is not None, "runs in a task"
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    title = f"sentra demo · {given.scenario.name} · {given.scenario.tells}"
    if quiet:
        return await play(given, lambda story, policy: None, began)
    if not console.is_terminal:
        notes.print(title, highlight=False)
        return await play(given, _lines(began), began)
    console.print(f"[dim]{given.scenario.name}: starting broker, Redis, Envoy, two services and a worker[/]")
    with Live(console=console, refresh_per_second=8, transient=True) as live:

        def watch(story: Story, policy: Policy) -> None:
            picture = render(story, policy, title, SystemClock().now(), began)
            # On the line below, the terminal's ^C does not wrap, and the picture can be wiped to its top.
            live.update(Group(picture, ""))

        return await play(given, watch, began)


def _lines(began: float) -> Callable[[Story, Policy], None]:
    """Each event as a line, as it comes."""
    shown: set[tuple[float, str]] = set()

    def watch(story: Story, policy: Policy) -> None:
        for at, what in list(story.events):
            if (at, what) not in shown:
                shown.add((at, what))
                notes.print(f"{at - began:6.1f} s  {what}", markup=False, highlight=False, soft_wrap=True)

    return watch


def _what_next(played: list[Scenario]) -> None:
    others = [name for name in SCENARIOS if name not in {each.name for each in played}]
    console.print("\n[bold]Try next[/]")
    table = Table(box=None, show_header=False, pad_edge=True, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(style="dim")
    first, rest = (others[0], others[1:]) if others else ("errors", [])
    table.add_row(f"  sentra demo -s {first}", f"or {', '.join(rest)}" if rest else "")
    table.add_row("  sentra demo --keep", "keeps database, archive, logs and policy in .sentra/")
    table.add_row("  sentra up", "the stack for your own service")
    console.print(table)
