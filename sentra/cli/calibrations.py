"""``sentra calibrations``: what is known of each service when a rollout of it starts, and learning it anew.

Needs the database only: it works beside a running Sentra as well as while none runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Engine

from domain.clock import SystemClock
from domain.errors import ConfigError
from sentra.cli import calibration_view as view
from sentra.cli.calibration_view import Known
from sentra.cli.connect import ConfigOption
from sentra.cli.exits import Unreachable
from sentra.cli.output import Output, OutputOption, console, show_json, show_table
from sentra.config import Settings, load
from sentra.embedded.running import find
from store.calibrations import Calibrations, Place
from store.database import check_current, open_engine
from store.repository import Repository
from streams.agents.calibrate import MAX_AGE_S, MAX_RUNS, refresh, remember_finished

DAY_S = 86_400.0

app = typer.Typer(
    help="What is known of each service when a rollout of it starts, learnt from its finished rollouts.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

ServiceArgument = Annotated[str, typer.Argument(metavar="SERVICE", help="the service")]
EnvironmentOption = Annotated[
    str | None, typer.Option("--environment", "--env", help="only there", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="the same as --output json")]


@app.command("list")
def list_known(
    config: ConfigOption = None, as_json: JsonOption = False, output: OutputOption = Output.TEXT
) -> None:
    """List the services whose rollouts are remembered, and the tier at which the next one will be judged.

    Example: `sentra calibrations list`
    """
    calibrations = Calibrations(_engine(config))
    found, now = _known(calibrations), SystemClock().now()
    if as_json or output is Output.JSON:
        show_json([_brief(each) for each in found])
        return
    columns = ("service", "environment", "tick", "tier", "healthy", "version", "learnt", "what that means")
    show_table("rollouts are remembered yet", columns, [view.row(each, now) for each in found])


@app.command("show")
def show(
    service: ServiceArgument,
    environment: EnvironmentOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show what was learnt of a service: how its healthy versions differ, and how sure a roll-back must be.

    Example: `sentra calibrations show checkout --environment prod-eu`
    """
    calibrations = Calibrations(_engine(config))
    found, now = _of_service(calibrations, service, environment), SystemClock().now()
    if as_json or output is Output.JSON:
        show_json([_whole(each) for each in found])
        return
    for at, each in enumerate(found):
        if at:
            console.print()
        console.print(view.screen(each, now))


@app.command("refresh")
def refresh_service(
    service: ServiceArgument,
    environment: EnvironmentOption = None,
    days: Annotated[
        float, typer.Option(min=0.0, help="learn from rollouts that ended in the last so many days")
    ] = MAX_AGE_S / DAY_S,
    runs: Annotated[int, typer.Option(min=1, help="learn from so many of them at most")] = MAX_RUNS,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Learn a service anew from its finished rollouts. A worker does it by itself whenever one ends.

    Rollouts that have started keep what was known at their start.

    Example: `sentra calibrations refresh checkout --days 90`
    """
    engine = _engine(config)
    calibrations, now = Calibrations(engine), SystemClock().now()
    remember_finished(Repository(engine), calibrations, now, max_age_s=days * DAY_S)
    places = [each.place for each in _of_service(calibrations, service, environment)]
    renewed = [
        refresh(calibrations, place, now, max_runs=runs, max_age_s=days * DAY_S) is not None
        for place in places
    ]
    found = _of_service(calibrations, service, environment)
    if as_json or output is Output.JSON:
        show_json([_brief(each) | {"is_new": new} for each, new in zip(found, renewed, strict=True)])
        return
    for each, new in zip(found, renewed, strict=True):
        console.print(_outcome(each, is_new=new), markup=False, highlight=False, soft_wrap=True)


def _outcome(known: Known, *, is_new: bool) -> str:
    what = f"{known.place.service} in {known.place.environment}"
    if known.newest is None:
        return f"{what}: nothing learnt yet, {view.not_yet(known)}"
    tier, runs = known.newest.calibration.tier.value, known.newest.calibration.runs
    news = "now counts" if is_new else "still counts: nothing new was learnt"
    return f"{what}: version {known.newest.version} (tier {tier} from {runs} rollouts) {news}"


# Asking.


def _engine(config: Path | None) -> Engine:
    """The database, when it is there and has the schema of this release."""
    settings = _settings(config)
    if not settings.database and not (settings.state_dir / "sentra.db").exists():
        raise Unreachable(
            f"there is no database in {settings.state_dir.absolute()}; start a Sentra there with sentra up, "
            "or name one in sentra.yaml"
        )
    engine = open_engine(settings.database_url)
    check_current(engine)
    return engine


def _settings(config: Path | None) -> Settings:
    settings = load(config)
    running = None if settings.bootstrap else find(settings.state_dir)
    return settings if running is None else load(Path(running.config))


def _known(calibrations: Calibrations) -> list[Known]:
    learnt = {
        Place(service=each.service, environment=each.environment, interval_s=each.calibration.interval_s)
        for each in calibrations.list_newest()
    }
    return [_known_of(calibrations, place) for place in sorted(learnt | set(calibrations.places()))]


def _known_of(calibrations: Calibrations, place: Place) -> Known:
    remembered, healthy = calibrations.counts(place)
    newest = calibrations.newest(place)
    ends = () if newest is None else (newest.calibration.first_rollout, newest.calibration.last_rollout)
    return Known(
        place=place,
        remembered=remembered,
        healthy=healthy,
        newest=newest,
        ended=calibrations.ended_at(ends),
    )


def _of_service(calibrations: Calibrations, service: str, environment: str | None) -> list[Known]:
    """What is known of a service. Raises :class:`ConfigError` naming the known ones when that is nothing."""
    every = _known(calibrations)
    found = [
        each
        for each in every
        if each.place.service == service and environment in (None, each.place.environment)
    ]
    if not found:
        wanted = service if environment is None else f"{service} in {environment}"
        names = dict.fromkeys(f"{each.place.service} in {each.place.environment}" for each in every)
        known = f"known are {', '.join(names)}" if names else "no rollout of any service has ended yet"
        raise ConfigError(f"no finished rollout of {wanted} is remembered; {known}")
    return found


# For programs.


def _brief(known: Known) -> dict[str, Any]:
    newest = known.newest
    return {
        "service": known.place.service,
        "environment": known.place.environment,
        "interval_s": known.place.interval_s,
        "tier": "R0" if newest is None else newest.calibration.tier,
        "remembered": known.remembered,
        "healthy": known.healthy,
        "version": None if newest is None else newest.version,
        "learnt_at": None if newest is None else newest.at,
        "learnt_from": 0 if newest is None else newest.calibration.runs,
    }


def _whole(known: Known) -> dict[str, Any]:
    return _brief(known) | {"calibration": None if known.newest is None else known.newest.calibration}
