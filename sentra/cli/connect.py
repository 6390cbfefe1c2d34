"""Finds the Sentra that a command talks to: the one the settings name, or the embedded one of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentra.cli.exits import Unreachable
from sentra.config import Settings, load
from sentra.embedded.running import find
from store.calibrations import Calibrations
from store.database import open_engine
from store.repository import Repository

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="settings file; default: sentra.yaml, if there is one")
]


def settings_of(config: Path | None) -> Settings:
    """The settings to reach a running Sentra.

    Raises
    ------
    Unreachable
        No broker is named and no embedded stack runs here.
    """
    settings = load(config)
    if settings.bootstrap:
        return settings
    running = find(settings.state_dir)
    if running is None:
        raise Unreachable(
            f"no Sentra runs in {settings.state_dir.absolute()}; start one there with sentra up, "
            "or name a broker and a database in sentra.yaml"
        )
    return load(Path(running.config))


def repository_of(settings: Settings) -> Repository:
    """The database of a running Sentra."""
    return Repository(open_engine(settings.database_url))


def calibrations_of(settings: Settings) -> Calibrations:
    """What a running Sentra knows of its services."""
    return Calibrations(open_engine(settings.database_url))
