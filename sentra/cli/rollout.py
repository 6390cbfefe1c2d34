"""``sentra rollout``: start rollouts, see what they do and why, and tell them what to do.

Commands ask and show; what they ask is in ``rollout_ask``, how they follow a rollout in ``rollout_follow``,
what that sees in ``rollout_present`` and ``rollout_events``, how it looks in ``rollout_view``. What operators
tell a running rollout is in ``rollout_tell``.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace
from rich.live import Live

from domain.clock import SystemClock
from domain.decision import CommandKind
from domain.errors import ConfigError
from domain.labels import Labels
from domain.policy import Policy
from domain.rollout import RolloutSpec, sources_of
from domain.units import parse_duration
from sentra.cli import rollout_ask as asking
from sentra.cli import rollout_view as view
from sentra.cli.connect import ConfigOption, calibrations_of, repository_of, settings_of
from sentra.cli.exits import Exit, Rejected
from sentra.cli.output import Output, OutputOption, console, notes, show_json, show_table
from sentra.cli.policy import read_policy
from sentra.cli.rollout_admit import admitted
from sentra.cli.rollout_follow import Follower, Snapshot, follow, glance
from sentra.cli.rollout_json import brief_json, status_json
from sentra.cli.rollout_options import (
    AcceptUndecidableOption,
    ActorOption,
    IdArgument,
    NewIdOption,
    ReasonOption,
    RpsOption,
    TimeoutOption,
    WaitOption,
)
from sentra.cli.rollout_tell import TOLD, answer_json
from store.repository import Repository

EXIT_CODES = (
    "Exit codes: 0 promoted, 1 failed or an error, 2 rolled back, 3 aborted, "
    "4 still running at the time-out, 5 refused, 7 unreachable, 8 paused and waiting for a person."
)

app = typer.Typer(
    help="Start rollouts, see what they do and why, and tell them what to do.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

POLICY_FILE = Path("policy.yaml")
WAIT = "30m"


@app.command(epilog=EXIT_CODES)
def start(
    service: Annotated[str, typer.Option(help="the service; must be the policy's")],
    env: Annotated[str, typer.Option(help="the environment; must be the policy's")],
    stable: Annotated[str, typer.Option(help="the version that runs now")],
    canary: Annotated[str, typer.Option(help="the version to be judged")],
    policy: Annotated[Path, typer.Option(help="the policy, as YAML")] = POLICY_FILE,
    rps: RpsOption = None,
    accept_undecidable: AcceptUndecidableOption = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = WAIT,
    rollout_id: NewIdOption = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> int:
    """Start a rollout: traffic moves from STABLE to CANARY, step by step, as far as the evidence allows.

    Example: `sentra rollout start --service shop --env prod --stable v1 --canary v2 --wait`
    """
    within_s = _seconds(timeout)
    settings = settings_of(config)
    chosen = _fitting(read_policy(policy), service, env, policy)
    who, now = actor or asking.operator(), SystemClock().now()
    spec = RolloutSpec(
        rollout_id=_checked_id(rollout_id) or asking.new_id(service, now),
        service=service,
        environment=env,
        stable=stable,
        canary=canary,
        policy=chosen,
        sources=sources_of(chosen, settings.freshness()),
        labels=Labels(service=service, env=env),
        created_at=now,
        created_by=who,
    )
    known = calibrations_of(settings).frozen_into(spec)
    known = admitted(known, rps, policy, accept_undecidable=accept_undecidable)
    return _begin(repository_of(settings), known, "", within_s if wait else None, output)


@app.command(epilog=EXIT_CODES)
def retry(
    rollout_id: Annotated[str, typer.Argument(metavar="ID", help="the rollout that has ended")],
    wait: WaitOption = False,
    timeout: TimeoutOption = WAIT,
    new_id: NewIdOption = None,
    reason: ReasonOption = "",
    actor: ActorOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> int:
    """Start a rollout that has ended once more: same versions, same policy, a new id.

    Example: `sentra rollout retry shop-20250801-120000-1a2b --reason "the database is back"`
    """
    within_s = _seconds(timeout)
    settings = settings_of(config)
    repository = repository_of(settings)
    old = asking.find(repository, rollout_id)
    if old.is_active:
        phase = old.phase.value.replace("_", " ")
        raise Rejected(f"rollout {old.spec.rollout_id} has not ended ({phase}); abort it first, then retry")
    now = SystemClock().now()
    spec = replace(
        old.spec,
        rollout_id=_checked_id(new_id) or asking.new_id(old.spec.service, now),
        sources=sources_of(old.spec.policy, settings.freshness()),
        created_at=now,
        created_by=actor or asking.operator(),
        retry_of=old.spec.rollout_id,
    )
    known = calibrations_of(settings).frozen_into(spec)
    return _begin(repository, known, reason, within_s if wait else None, output)


@app.command("list")
def list_rollouts(
    every: Annotated[bool, typer.Option("--all", help="those that have ended, too")] = False,
    service: Annotated[
        str | None, typer.Option(help="only those of this service", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="how many at most")] = 50,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List rollouts, newest first: those that are active, or all.

    Example: `sentra rollout list --all --service shop`
    """
    repository = repository_of(settings_of(config))
    found = repository.list_rollouts(service=service, is_active=None if every else True, limit=limit)
    seen, now = [glance(repository, each) for each in found], SystemClock().now()
    if output is Output.JSON:
        show_json([brief_json(each, now) for each in seen])
        return
    rows = [view.row(each, now) for each in seen]
    columns = ("id", "what", "versions", "phase", "weight", "started", "waits for, or why it ended")
    show_table("rollouts" if every else "active rollouts", columns, rows)


@app.command()
def status(
    rollout_id: IdArgument = None, config: ConfigOption = None, output: OutputOption = Output.TEXT
) -> None:
    """Show a rollout: its steps, its gates against their limits, the last decision and why.

    Example: `sentra rollout status --output json`
    """
    repository = repository_of(settings_of(config))
    snapshot = Follower(repository, asking.find(repository, rollout_id).spec.rollout_id).look()
    now = SystemClock().now()
    if output is Output.JSON:
        show_json(status_json(snapshot, now))
    else:
        console.print(view.screen(snapshot, now))


@app.command(epilog=EXIT_CODES)
def watch(
    rollout_id: IdArgument = None,
    timeout: Annotated[
        str | None,
        typer.Option(help="how long to watch, such as 90s; default: to the end", show_default=False),
    ] = None,
    until_pause: Annotated[
        bool, typer.Option("--until-pause", help="end also when it waits for a person")
    ] = False,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> int:
    """Watch a rollout live until it ends. Ctrl-C ends only the watching.

    Example: `sentra rollout watch --timeout 1h`
    """
    within_s = inf if timeout is None else _seconds(timeout)
    repository = repository_of(settings_of(config))
    chosen = asking.find(repository, rollout_id).spec.rollout_id
    return _follow(repository, chosen, within_s, output, until_pause=until_pause)


for _name, _told, _help in TOLD:
    app.command(_name, help=_help)(_told)


def _begin(
    repository: Repository, spec: RolloutSpec, reason: str, within_s: float | None, output: Output
) -> int:
    """Start a rollout; with ``within_s`` stay with it, until it ends or a person is needed."""
    command = asking.new_command(
        CommandKind.START, spec.rollout_id, actor=spec.created_by, reason=reason, spec=spec
    )
    answer = asking.start(repository, spec, command)
    if within_s is not None:
        notes.print(f"started {spec.rollout_id}", markup=False, highlight=False)
        return _follow(repository, spec.rollout_id, within_s, output, until_pause=True)
    if output is Output.JSON:
        show_json(answer_json(spec.rollout_id, answer))
    else:
        console.print(f"started [bold]{spec.rollout_id}[/]", highlight=False, soft_wrap=True)
        console.print(f"next: sentra rollout watch {spec.rollout_id}", highlight=False, soft_wrap=True)
    return Exit.OK


def _follow(
    repository: Repository, rollout_id: str, within_s: float, output: Output, *, until_pause: bool
) -> int:
    """Show progress until the end: a live picture on a terminal, a line per event elsewhere."""
    follower, clock = Follower(repository, rollout_id), SystemClock()

    def look(show: Callable[[Snapshot], None]) -> tuple[Snapshot, Exit]:
        return follow(follower, show, within_s=within_s, until_pause=until_pause)

    if notes.is_terminal:
        with Live(console=notes, auto_refresh=False, transient=True) as live:
            last, code = look(lambda now: live.update(view.screen(now, clock.now()), refresh=True))
    else:
        last, code = look(_print_news)
    if output is Output.JSON:
        show_json(status_json(last, clock.now()) | {"exit_code": code})
    else:
        console.print(view.screen(last, clock.now(), limit=0))
        console.print(_ending(rollout_id, code), markup=False, highlight=False, soft_wrap=True)
    return code


def _print_news(snapshot: Snapshot) -> None:
    for event in snapshot.news:
        notes.print(view.event_line(event), soft_wrap=True)


def _ending(rollout_id: str, code: Exit) -> str:
    match code:
        case Exit.STILL_RUNNING:
            return f"the time-out came first; it goes on: sentra rollout watch {rollout_id}"
        case Exit.WAITING:
            return f"it waits for a person: sentra rollout resume, advance, promote or abort {rollout_id}"
        case Exit.OK:
            return "promoted"
        case _:
            return f"it ended; once more: sentra rollout retry {rollout_id}"


def _fitting(policy: Policy, service: str, env: str, path: Path) -> Policy:
    """The policy, when it is meant for this service and environment."""
    if (policy.service, policy.environment) != (service, env):
        raise ConfigError(
            f"{path} is the policy of {policy.service} in {policy.environment}, not of {service} in {env}; "
            "name the fitting policy with --policy"
        )
    return policy


def _checked_id(rollout_id: str | None) -> str | None:
    """A chosen id, when it can be typed, stored and put into a path."""
    if rollout_id is not None and not asking.ID.fullmatch(rollout_id):
        raise ConfigError(f"an id is 1 to 64 letters, digits, '.', '_' or '-', got {rollout_id!r}")
    return rollout_id


def _seconds(timeout: str) -> float:
    try:
        return parse_duration(timeout)
    except ValueError as exc:
        raise ConfigError(f"--timeout: {exc}") from exc
