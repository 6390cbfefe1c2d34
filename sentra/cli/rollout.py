"""``sentra rollout``: start rollouts, see what they do and why, and tell them what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domain.clock import SystemClock
from domain.decision import CommandKind
from domain.errors import ConfigError
from domain.labels import Labels
from domain.policy import Policy
from domain.rollout import RolloutSpec, sources_of
from sentra.cli import rollout_ask as asking
from sentra.cli.connect import ConfigOption, repository_of, settings_of
from sentra.cli.exits import Exit
from sentra.cli.output import Output, OutputOption, console, show_json
from sentra.cli.policy import read_policy

app = typer.Typer(
    help="Start rollouts, see what they do and why, and tell them what to do.", no_args_is_help=True
)

POLICY_FILE = Path("policy.yaml")

ActorOption = Annotated[str | None, typer.Option(help="who asks; default: your user name")]


@app.callback()
def _group() -> None:
    """Start rollouts, see what they do and why, and tell them what to do."""


@app.command()
def start(
    service: Annotated[str, typer.Option(help="the service; must be the policy's")],
    env: Annotated[str, typer.Option(help="the environment; must be the policy's")],
    stable: Annotated[str, typer.Option(help="the version that runs now")],
    canary: Annotated[str, typer.Option(help="the version to be judged")],
    policy: Annotated[Path, typer.Option(help="the policy, as YAML")] = POLICY_FILE,
    id: Annotated[str | None, typer.Option(help="the rollout's id; default: a new one")] = None,
    actor: ActorOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TEXT,
) -> int:
    """Start a rollout: move traffic from STABLE to CANARY step by step, as far as the evidence allows."""
    settings = settings_of(config)
    chosen = _fitting(read_policy(policy), service, env, policy)
    now, who = SystemClock().now(), actor or asking.operator()
    spec = RolloutSpec(
        rollout_id=id or asking.new_id(service, now),
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
    command = asking.new_command(CommandKind.START, spec.rollout_id, actor=who, spec=spec)
    asking.start(repository_of(settings), spec, command)
    if output is Output.JSON:
        show_json({"rollout_id": spec.rollout_id})
    else:
        console.print(f"started {spec.rollout_id}")
    return Exit.OK


def _fitting(policy: Policy, service: str, env: str, path: Path) -> Policy:
    """The policy, when it is meant for this service and environment."""
    if (policy.service, policy.environment) != (service, env):
        raise ConfigError(
            f"{path} is the policy of {policy.service} in {policy.environment}, "
            f"not of {service} in {env}; use the fitting policy, or the policy's --service and --env"
        )
    return policy
