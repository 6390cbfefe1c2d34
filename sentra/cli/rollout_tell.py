"""What operators tell a running rollout. It is done when the judge accepted it; a refusal is exit code 5."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from domain.decision import Answer, CommandKind
from domain.records import Command
from sentra.cli import rollout_ask as asking
from sentra.cli.connect import ConfigOption, repository_of, settings_of
from sentra.cli.output import Output, OutputOption, console, show_json
from sentra.cli.policy import read_policy
from sentra.cli.rollout_options import ActorOption, ForceOption, IdArgument, ReasonOption
from store.repository import Repository


def _command(kind: CommandKind) -> Callable[..., None]:
    """The function behind a command that may not be forced."""

    def command(
        rollout_id: IdArgument = None,
        reason: ReasonOption = "",
        actor: ActorOption = None,
        config: ConfigOption = None,
        output: OutputOption = Output.TEXT,
    ) -> None:
        _tell(kind, rollout_id, reason, actor, False, config, output)

    return command


def _forceable(kind: CommandKind) -> Callable[..., None]:
    """The function behind a command that the evidence may forbid."""

    def command(
        rollout_id: IdArgument = None,
        reason: ReasonOption = "",
        force: ForceOption = False,
        actor: ActorOption = None,
        config: ConfigOption = None,
        output: OutputOption = Output.TEXT,
    ) -> None:
        _tell(kind, rollout_id, reason, actor, force, config, output)

    return command


def _tell(
    kind: CommandKind,
    rollout_id: str | None,
    reason: str,
    actor: str | None,
    force: bool,
    config: Path | None,
    output: Output,
) -> None:
    repository = repository_of(settings_of(config))
    chosen = asking.find(repository, rollout_id).spec.rollout_id
    who = actor or asking.operator()
    _ask(repository, asking.new_command(kind, chosen, actor=who, reason=reason, force=force), output)


def _ask(repository: Repository, command: Command, output: Output) -> None:
    answer = asking.ask(repository, command)
    if output is Output.JSON:
        show_json(answer_json(command.rollout_id, answer))
    else:
        console.print(f"{command.rollout_id}: {answer.reason}", markup=False, highlight=False, soft_wrap=True)


def answer_json(rollout_id: str, answer: Answer) -> dict[str, object]:
    return {
        "rollout_id": rollout_id,
        "command_id": answer.command_id,
        "accepted": answer.accepted,
        "answer": answer.reason,
        "possible": answer.possible,
    }


def _change_policy(
    rollout_id: Annotated[str, typer.Argument(metavar="ID", help="the rollout")],
    file: Annotated[Path, typer.Argument(help="the new policy, as YAML; only its gates may differ")],
    reason: ReasonOption = "",
    actor: ActorOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Hand in the new policy; the judge takes over its gates."""
    policy = read_policy(file)
    repository = repository_of(settings_of(config))
    command = asking.new_command(
        CommandKind.CHANGE_POLICY,
        asking.find(repository, rollout_id).spec.rollout_id,
        actor=actor or asking.operator(),
        reason=reason,
        policy=policy,
    )
    _ask(repository, command, output)


TOLD: tuple[tuple[str, Callable[..., None], str], ...] = (
    (
        "pause",
        _command(CommandKind.PAUSE),
        "Pause a rollout: traffic stays where it is, and judging goes on.\n\n"
        'Example: `sentra rollout pause --reason "a look at the logs first"`',
    ),
    (
        "resume",
        _forceable(CommandKind.RESUME),
        "Resume a paused rollout where it stood. Refused while its gates fail, unless forced.\n\n"
        "Example: `sentra rollout resume`",
    ),
    (
        "advance",
        _forceable(CommandKind.ADVANCE),
        "Advance to the next step without waiting, or approve the one that waits for approval.\n\n"
        "Refused while the evidence is bad or missing, unless forced. Example: `sentra rollout advance`",
    ),
    (
        "promote",
        _forceable(CommandKind.PROMOTE),
        "Promote the canary to 100 % at once. Refused while the evidence is bad, unless forced.\n\n"
        'Example: `sentra rollout promote --force --reason "urgent fix"`',
    ),
    (
        "abort",
        _command(CommandKind.ABORT),
        "Abort a rollout: all traffic goes back to stable.\n\n"
        'Example: `sentra rollout abort --reason "wrong version"`',
    ),
    (
        "change-policy",
        _change_policy,
        "Change the gates of a running rollout; what was measured so far is then forgotten.\n\n"
        'Example: `sentra rollout change-policy shop-20250801-120000-1a2b policy.yaml --reason "noisy logs"`',
    ),
)
"""Name on the command line, what it does, help text."""
