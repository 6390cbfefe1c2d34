"""``sentra``: the program. Joins the groups of commands; errors become one sentence and an exit code."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import typer
from rich.markup import escape

from domain.errors import SentraError
from sentra.cli import calibrations, db, policy, rollout, schema, stack, topics
from sentra.cli.exits import Exit, exit_of
from sentra.cli.house import check_house
from sentra.cli.output import notes
from sentra.embedded.demo.command import demo

ClickError: type[Exception] = typer.BadParameter.__mro__[2]
"""``ClickException`` of the Click inside Typer; recent ones bring their own, where it has no public name."""

app = typer.Typer(
    name="sentra",
    help="Progressive delivery with evidence: canaries promoted, paused or rolled back by telemetry.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("up")(stack.up)
app.command("worker")(stack.worker)
app.command("demo")(demo)
app.command("topics")(topics.topics)
app.command("schema")(schema.schema)
app.add_typer(rollout.app, name="rollout")
app.add_typer(policy.app, name="policy")
app.add_typer(calibrations.app, name="calibrations")
app.add_typer(db.app, name="db")


def run(arguments: list[str] | None = None) -> None:
    """Run the program; never returns."""
    sys.exit(invoke(arguments))


def invoke(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code. Click's own codes are remapped: 2 means rolled back."""
    try:
        check_house()
        result: Any = app(arguments, standalone_mode=False)
    except SentraError as exc:
        notes.print(f"[bold red]error[/] {escape(str(exc))}", highlight=False, soft_wrap=True)
        return exit_of(exc)
    except ClickError as exc:
        exc.show()  # type: ignore[attr-defined]  # see ClickError
        return Exit.ERROR
    except (typer.Abort, KeyboardInterrupt, asyncio.CancelledError):
        notes.print("interrupted")
        return Exit.ERROR
    return int(result) if isinstance(result, int) else Exit.OK


if __name__ == "__main__":
    run()
