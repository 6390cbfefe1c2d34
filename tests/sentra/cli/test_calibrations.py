"""``sentra calibrations`` on a real database with no Sentra beside it, and what rollouts get of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from domain.calibration import Calibration, Law, Tier
from domain.clock import SystemClock
from scorers.evidence.learn.calibrate import MIN_ROLLOUTS
from sentra.cli.calibration_view import ENOUGH
from sentra.cli.connect import calibrations_of, repository_of, settings_of
from sentra.cli.exits import Exit
from store.calibrations import Calibrations, Place
from store.database import open_engine, upgrade
from store.repository import Repository
from streams.agents.calibrate import refresh, remember_finished
from tests.scorers.evidence.finished_rollouts import Traffic, evident, finished
from tests.sentra.cli.conftest import Line, abort_all
from tests.sentra.cli.shop import Shop

HOUR_S = 3600.0
CHECKOUT = Place(service="checkout", environment="prod", interval_s=5.0)


@pytest.fixture
def repository(nowhere: Path) -> Repository:
    """The database of the embedded stack of this folder, which does not run."""
    (nowhere / ".sentra").mkdir()
    url = f"sqlite:///{nowhere / '.sentra' / 'sentra.db'}"
    upgrade(url)
    return Repository(open_engine(url))


def roll_out(repository: Repository, seeds: range, traffic: Traffic | None = None) -> None:
    """Rollouts that ended in the last hours."""
    first = (SystemClock().now() - 20 * HOUR_S) // 5.0 * 5.0
    for seed in seeds:
        repository.append(finished(f"r-{seed}", seed, traffic, at=first + seed * 900.0))


@pytest.fixture
def learnt(repository: Repository, nowhere: Path) -> Repository:
    """Twenty-one healthy rollouts of checkout, and what a worker has learnt of them."""
    roll_out(repository, range(21))
    calibrations = Calibrations(open_engine(f"sqlite:///{nowhere / '.sentra' / 'sentra.db'}"))
    remember_finished(repository, calibrations, SystemClock().now())
    refresh(calibrations, CHECKOUT, SystemClock().now())
    return repository


def test_the_list_says_how_the_next_rollout_will_be_judged(learnt: Repository, sentra: Line) -> None:
    said = sentra("calibrations", "list")
    assert said.code == Exit.OK
    (line,) = said.out.splitlines()[1:]
    assert line.split()[:6] == ["checkout", "prod", "5s", "R2", "21", "of"]
    assert "from 21" in line and "learnt from finished healthy rollouts of this service" in line


def test_programs_get_json_by_either_option(learnt: Repository, sentra: Line) -> None:
    (brief,) = sentra("calibrations", "list", "--json").value
    assert sentra("calibrations", "list", "--output", "json").value == [brief]
    learnt_at = brief.pop("learnt_at")
    assert 0 <= SystemClock().now() - learnt_at < 600
    assert brief == {
        "service": "checkout",
        "environment": "prod",
        "interval_s": 5.0,
        "tier": "R2",
        "remembered": 21,
        "healthy": 21,
        "version": 1,
        "learnt_from": 21,
    }


def test_show_says_in_plain_words_what_was_learnt(learnt: Repository, sentra: Line) -> None:
    said = sentra("calibrations", "show", "checkout")
    assert said.code == Exit.OK
    for words in (
        "checkout in prod, judged every 5s",
        "tier R2   learnt from finished healthy rollouts of this service",
        "from      21 rollouts, r-0 (20",
        "nats: a rollout is severe when the evidence against its canary is",
        "at most 1 % of healthy ones ever look so bad",
        "how far a healthy canary's rate wanders from stable's",
        "how long such a difference lasts",
        "come in clusters",
        "while it is cold, by blocks of 10s",
        "latency_ms>400, stable's halves",
    ):
        assert words in said.out, words


def test_show_gives_programs_the_whole_calibration(learnt: Repository, sentra: Line) -> None:
    (whole,) = sentra("calibrations", "show", "checkout", "--environment", "prod", "--json").value
    calibration = whole["calibration"]
    assert (calibration["tier"], calibration["runs"], calibration["last_rollout"]) == ("R2", 21, "r-20")
    assert set(calibration["laws"]) >= {"error_rate", "latency_ms>400"}
    assert calibration["threshold"] > 5


def test_an_unknown_service_is_answered_with_the_known_ones(learnt: Repository, sentra: Line) -> None:
    for words in (("show", "chekout"), ("refresh", "chekout"), ("show", "checkout", "--env", "moon")):
        said = sentra("calibrations", *words)
        assert said.code == Exit.ERROR
        assert "is remembered; known are checkout in prod" in " ".join(said.err.split())


def test_refresh_learns_what_nobody_learnt_and_says_when_there_is_nothing_new(
    learnt: Repository, sentra: Line
) -> None:
    assert (
        "version 1 (tier R2 from 21 rollouts) still counts"
        in sentra("calibrations", "refresh", "checkout").out
    )
    roll_out(learnt, range(21, 23))
    said = sentra("calibrations", "refresh", "checkout")
    assert said.out == "checkout in prod: version 2 (tier R2 from 23 rollouts) now counts\n"
    (again,) = sentra("calibrations", "refresh", "checkout", "--runs", "20", "--json").value
    assert (again["version"], again["learnt_from"], again["is_new"]) == (3, 20, True)
    assert "still counts" in sentra("calibrations", "refresh", "checkout", "--days", "0").out


def test_too_few_rollouts_are_said_to_be_too_few(repository: Repository, sentra: Line) -> None:
    roll_out(repository, range(3), Traffic(has_halves=False))
    said = sentra("calibrations", "refresh", "checkout")
    assert said.out.startswith("checkout in prod: nothing learnt yet, 3 of the 20 healthy rollouts")
    shown = sentra("calibrations", "show", "checkout").out
    assert "tier R0   nothing learnt about this service yet" in shown
    assert "3 of the 20 healthy rollouts that are needed" in shown
    (brief,) = sentra("calibrations", "list", "--json").value
    assert (brief["tier"], brief["version"], brief["learnt_at"]) == ("R0", None, None)
    assert ENOUGH == MIN_ROLLOUTS


def test_stables_replicas_alone_are_said_not_to_know_warm_ups(repository: Repository, sentra: Line) -> None:
    roll_out(repository, range(2))
    assert "(tier R1 from 2 rollouts) now counts" in sentra("calibrations", "refresh", "checkout").out
    shown = sentra("calibrations", "show", "checkout").out
    assert "learnt from stable replicas against each other" in shown
    assert "5 (not learnt)" in shown


def test_each_environment_is_shown_apart(learnt: Repository, sentra: Line) -> None:
    at = SystemClock().now() // 5.0 * 5.0 - HOUR_S
    learnt.append(finished("us", 1, rules=evident(environment="prod-us"), at=at))
    assert sentra("calibrations", "refresh", "checkout", "--environment", "prod-us").code == Exit.OK
    found = sentra("calibrations", "show", "checkout", "--json").value
    assert [(each["environment"], each["tier"]) for each in found] == [("prod", "R2"), ("prod-us", "R1")]


def test_an_empty_database_says_that_nothing_is_remembered(repository: Repository, sentra: Line) -> None:
    assert sentra("calibrations", "list").out == "no rollouts are remembered yet\n"
    said = sentra("calibrations", "show", "checkout")
    assert said.code == Exit.ERROR
    assert "no rollout of any service has ended yet" in " ".join(said.err.split())


def test_a_folder_without_a_database_is_one_clear_sentence(nowhere: Path, sentra: Line) -> None:
    said = sentra("calibrations", "list")
    assert said.code == Exit.UNREACHABLE
    assert "there is no database in" in said.err
    assert not (nowhere / ".sentra").exists()


def test_starting_and_retrying_freeze_what_is_known_by_then(shop: Shop, sentra: Line) -> None:
    settings = settings_of(None)
    calibrations, repository = calibrations_of(settings), repository_of(settings)
    place = Place(service=shop.service, environment="test", interval_s=1.0)
    known = Calibration(tier=Tier.R2, interval_s=1.0, laws={"log_error_ratio": Law()}, runs=20)
    calibrations.add(place, known)
    first = f"{shop.service}-a"
    assert sentra(*shop.slow_line("--id", first, judge="evidence")).code == Exit.OK
    abort_all()
    calibrations.add(place, replace(known, runs=21))
    second = f"{shop.service}-b"
    assert sentra("rollout", "retry", first, "--id", second).code == Exit.OK
    for rollout_id, runs in ((first, 20), (second, 21)):
        stored = repository.get_rollout(rollout_id)
        fold = repository.last_fold(rollout_id)
        assert stored is not None and fold is not None
        assert stored.spec.calibration == fold.context.calibration == replace(known, runs=runs)
