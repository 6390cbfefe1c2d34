"""``sentra up`` and ``sentra worker``: what runs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from domain.errors import ConfigError
from sentra.cli.connect import ConfigOption
from sentra.cli.output import console
from sentra.config import load
from sentra.embedded.stack import Stack
from sentra.role import ALL_ROLES, Role


def up(
    config: ConfigOption = None,
    state: Annotated[
        Path | None, typer.Option(help="folder for database, logs and running state; default: .sentra")
    ] = None,
) -> None:
    """Start the embedded stack in this folder: broker, Redis, database and worker. Ctrl-C stops it.

    One machine, nothing but Python. For production run `sentra worker` against Kafka and MySQL.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    settings = load(config)
    settings.source_settings()  # a mistake in them is told before anything starts
    asyncio.run(_up(settings.sources, state or settings.state_dir))


async def _up(sources: dict[str, object], state: Path) -> None:
    task = asyncio.current_task()
    assert task is not None, "runs in a task"
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        async with Stack(state, sources=sources) as stack:
            _say_ready(stack, sources)
            try:
                await stack.supervise()
            finally:
                console.print("stopping")
    except asyncio.CancelledError:
        return  # asked to stop, and everything has


def _say_ready(stack: Stack, sources: dict[str, object]) -> None:
    console.print(f"[green]ready[/] in {stack.ready_s:.1f} s · state in {stack.state_dir}")
    console.print(f"  broker   {stack.broker.bootstrap} (Tansu, in memory)")
    console.print(f"  redis    {stack.redis.url}{'' if stack.redis.is_real else ' (stand-in)'}")
    console.print(f"  store    {stack.settings.database_url}")
    console.print(f"  sources  {', '.join(sources) or 'none yet: name them in sentra.yaml'}")
    console.print("next: [bold]sentra rollout start --help[/] · Ctrl-C stops everything")


def worker(
    role: Annotated[
        str, typer.Option("--roles", help="judge, actuate, record, poll, relay; separated by commas")
    ] = ",".join(ALL_ROLES),
    config: ConfigOption = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="gets this process's id once everything works")
    ] = None,
    web_port: Annotated[int, typer.Option(help="must differ between workers of one machine")] = 0,
) -> None:
    """Run a worker process: some or all roles, against the broker and database of the settings.

    Several workers with the same roles share the work.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("sentra").setLevel(logging.INFO)
    chosen = _roles(role)

    def ready() -> None:
        if ready_file is not None:
            ready_file.write_text(str(os.getpid()))

    # Faust tells workers of one machine apart by this port, which it never opens.
    port = web_port or 10_000 + os.getpid() % 50_000
    from sentra import roles  # Faust and its clients take a second to load; only a worker needs them

    asyncio.run(roles.run(load(config), chosen, ready=ready, web_port=port))


def _roles(text: str) -> list[Role]:
    chosen = []
    for name in text.split(","):
        try:
            chosen.append(Role(name.strip()))
        except ValueError:
            known = ", ".join(ALL_ROLES)
            raise ConfigError(f"unknown role {name!r}; known are {known}") from None
    return chosen
