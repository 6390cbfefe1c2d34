"""``sentra db``: the database's schema."""

from __future__ import annotations

import typer

from sentra.cli.connect import ConfigOption
from sentra.cli.output import console
from sentra.config import load
from store.database import check_current, open_engine, upgrade

app = typer.Typer(help="The database's schema.", no_args_is_help=True)


@app.command("upgrade")
def upgrade_schema(config: ConfigOption = None) -> None:
    """Bring the database to the schema of this release, creating it where there is none."""
    settings = load(config)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    upgrade(settings.database_url)
    console.print("the schema is current")


@app.command()
def check(config: ConfigOption = None) -> None:
    """Say whether the database has the schema of this release."""
    check_current(open_engine(load(config).database_url))
    console.print("the schema is current")
