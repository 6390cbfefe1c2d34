"""Learning beside the recorder, on a real database: what is remembered, when, and what a crash leaves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from domain.calibration import Tier
from domain.clock import ManualClock
from domain.decision import CommandKind
from domain.records import Evaluation, RolloutRecord
from domain.rollout import Phase
from scorers.replay import verify
from store.calibrations import Calibrations, Place
from store.database import open_engine, upgrade
from store.repository import Repository
from store.writer import BatchWriter
from streams.agents import calibrate
from streams.agents.calibrate import LATE_S, MAX_AGE_S, Learner, refresh, remember_finished
from streams.agents.record import RecordAgent
from tests.scorers.evidence.finished_rollouts import Traffic, evident, finished, spec
from tests.scorers.situations import T0
from tests.streams.judging import World, command
from tests.streams.judging import spec as judged_spec

PLACE = Place(service="checkout", environment="prod", interval_s=5.0)
DAY_S = 86_400.0
NOW = T0 + DAY_S


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'sentra.db'}"
    upgrade(url)
    opened = open_engine(url)
    yield opened
    opened.dispose()


@pytest.fixture
def repository(engine: Engine) -> Repository:
    return Repository(engine)


@pytest.fixture
def calibrations(engine: Engine) -> Calibrations:
    return Calibrations(engine)


def roll_out(repository: Repository, seeds: range, traffic: Traffic | None = None) -> None:
    """Rollouts one after the other, a quarter of an hour each."""
    for seed in seeds:
        repository.append(finished(f"r-{seed}", seed, traffic, at=T0 + seed * 900.0))


def learn_all(repository: Repository, calibrations: Calibrations, now: float = NOW) -> None:
    remember_finished(repository, calibrations, now)
    refresh(calibrations, PLACE, now)


def until(is_true: Callable[[], object], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not is_true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def tiers(evaluations: list[Evaluation]) -> set[str]:
    return {one.evidence.tier for each in evaluations for one in each.scores if one.evidence is not None}


def test_after_twenty_healthy_rollouts_the_next_is_judged_by_them(
    repository: Repository, calibrations: Calibrations
) -> None:
    roll_out(repository, range(19), Traffic(has_halves=False))
    learn_all(repository, calibrations)
    assert calibrations.newest(PLACE) is None
    wanted = spec("r-next")
    assert calibrations.frozen_into(wanted).calibration is None

    roll_out(repository, range(19, 20), Traffic(has_halves=False))
    learn_all(repository, calibrations)
    frozen = calibrations.frozen_into(wanted).calibration
    assert frozen is not None
    assert (frozen.tier, frozen.runs, frozen.learnt_at) == (Tier.R2, 20, NOW)
    assert (frozen.first_rollout, frozen.last_rollout) == ("r-0", "r-19")

    repository.append(finished("r-next", 77, calibration=frozen, at=NOW))
    stored = repository.evaluations_of("r-next")
    assert tiers(stored) == {"R2"}
    assert verify(stored) == []


def test_unhealthy_rollouts_teach_nothing_about_canaries(
    repository: Repository, calibrations: Calibrations
) -> None:
    roll_out(repository, range(20))
    learn_all(repository, calibrations)
    roll_out(repository, range(20, 23), Traffic(worse=30.0))
    learn_all(repository, calibrations, NOW + 60)
    assert calibrations.counts(PLACE) == (23, 20)
    newest = calibrations.newest(PLACE)
    assert newest is not None and newest.version == 1 and newest.calibration.runs == 20


def test_stables_halves_teach_from_any_rollout(repository: Repository, calibrations: Calibrations) -> None:
    roll_out(repository, range(2), Traffic(worse=30.0))
    learn_all(repository, calibrations)
    newest = calibrations.newest(PLACE)
    assert newest is not None
    assert (newest.calibration.tier, newest.calibration.runs) == (Tier.R1, 2)


def test_rollouts_older_than_a_month_count_no_longer(
    repository: Repository, calibrations: Calibrations
) -> None:
    roll_out(repository, range(20))
    remember_finished(repository, calibrations, NOW)
    assert refresh(calibrations, PLACE, NOW + MAX_AGE_S) is None
    learnt = refresh(calibrations, PLACE, NOW + MAX_AGE_S, max_age_s=2 * MAX_AGE_S)
    assert learnt is not None and learnt.calibration.tier is Tier.R2


def test_a_rollout_whose_end_is_still_being_written_is_remembered_when_it_is_there(
    repository: Repository, calibrations: Calibrations
) -> None:
    evaluations = finished("r-1", 1)
    repository.append(evaluations[:9])
    say_it_ended(repository, evaluations)
    remember_finished(repository, calibrations, evaluations[-1].input.now + 1.0)
    assert calibrations.unremembered(since=0.0, limit=9) == ["r-1"]

    repository.append(evaluations[9:])
    remember_finished(repository, calibrations, evaluations[-1].input.now + 2.0)
    assert calibrations.unremembered(since=0.0, limit=9) == []
    assert calibrations.counts(PLACE) == (1, 1)


def test_a_rollout_whose_end_never_comes_is_given_up(
    repository: Repository, calibrations: Calibrations
) -> None:
    evaluations = finished("r-1", 1)
    repository.append(evaluations[:9])
    say_it_ended(repository, evaluations)
    ended = evaluations[-1].input.now
    remember_finished(repository, calibrations, ended + LATE_S - 1.0)
    assert calibrations.unremembered(since=0.0, limit=9) == ["r-1"]
    remember_finished(repository, calibrations, ended + LATE_S + 1.0)
    assert calibrations.unremembered(since=0.0, limit=9) == []
    assert calibrations.counts(PLACE) == (0, 0)


def say_it_ended(repository: Repository, evaluations: list[Evaluation]) -> None:
    """The public record came before the last evaluations did."""
    fold = evaluations[-1].fold
    assert fold is not None
    state = fold.state
    repository.save_rollout(
        RolloutRecord(
            spec=fold.spec,
            phase=state.phase,
            seq=state.seq,
            at=state.now,
            step_index=state.step_index,
            ordered_bp=state.ordered_bp,
            verified_bp=state.verified_bp,
            generation=state.generation,
            verdict=None,
            passes=0,
            pause_causes=(),
            reason="",
            waits_for="",
            eta_s=None,
            started_at=state.started_at,
        )
    )


def test_a_rollout_that_cannot_be_read_stops_no_other(
    repository: Repository, calibrations: Calibrations, caplog: pytest.LogCaptureFixture
) -> None:
    repository.append(finished("headless", 1)[1:])
    roll_out(repository, range(1, 2))
    remember_finished(repository, calibrations, NOW)
    assert calibrations.counts(PLACE) == (1, 1)
    assert calibrations.unremembered(since=0.0, limit=9) == [], "it is not tried again and again"
    assert "nothing can be learnt from rollout headless" in caplog.text


# The thread.


def test_what_ended_while_nobody_learnt_is_caught_up_with_at_the_start(
    repository: Repository, calibrations: Calibrations
) -> None:
    roll_out(repository, range(20))
    with Learner(repository, calibrations, ManualClock(NOW)):
        until(lambda: calibrations.newest(PLACE) and not calibrations.unlearnt())
    newest = calibrations.newest(PLACE)
    assert newest is not None and newest.calibration.tier is Tier.R2


def test_a_crash_between_remembering_and_learning_is_caught_up_with(
    repository: Repository, calibrations: Calibrations
) -> None:
    roll_out(repository, range(20))
    remember_finished(repository, calibrations, NOW)
    with Learner(repository, calibrations, ManualClock(NOW)):
        until(lambda: not calibrations.unlearnt())
    assert calibrations.newest(PLACE) is not None


def test_a_database_that_is_away_is_waited_for(
    repository: Repository,
    calibrations: Calibrations,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(calibrate, "RETRY_S", 0.02)
    roll_out(repository, range(2))
    database = tmp_path / "sentra.db"
    engine.dispose()
    hidden = database.rename(tmp_path / "hidden.db")
    database.mkdir()
    with caplog.at_level(logging.WARNING), Learner(repository, calibrations, ManualClock(NOW)):
        until(lambda: "learning waits" in caplog.text)
        database.rmdir()
        hidden.rename(database)
        until(lambda: calibrations.newest(PLACE))
    assert [each.levelname for each in caplog.records if each.exc_info] == []


def test_what_cannot_be_learnt_is_logged_and_the_next_service_is_learnt(
    repository: Repository,
    calibrations: Calibrations,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    roll_out(repository, range(2))
    repository.append(finished("other", 9, rules=evident(service="zoo")))
    right = calibrate.learn

    def wrong(found: list[calibrate.Finished], *, max_runs: int) -> object:
        if found[0].rollout_id.startswith("r-"):
            raise ZeroDivisionError("a bug of ours")
        return right(found, max_runs=max_runs)

    monkeypatch.setattr(calibrate, "learn", wrong)
    zoo = Place(service="zoo", environment="prod", interval_s=5.0)
    with Learner(repository, calibrations, ManualClock(NOW)):
        until(lambda: calibrations.newest(zoo))
        until(lambda: not calibrations.unlearnt())
    assert calibrations.newest(PLACE) is None
    assert "nothing was learnt about checkout in prod" in caplog.text


# Beside the recorder.


class Bell:
    """Counts how often it is rung, and what was stored then."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.heard: list[Phase] = []

    def wake(self) -> None:
        stored = self._repository.get_rollout("r-1")
        assert stored is not None
        self.heard.append(stored.phase)


async def test_the_recorder_wakes_the_learner_once_an_end_is_stored(tmp_path: Path) -> None:
    world = World(tmp_path)
    judge = await world.judge()
    await world.begin(judge, judged_spec())
    bell = Bell(world.repository)
    async with BatchWriter(world.repository) as writer:
        agent = RecordAgent(
            writer=writer, facts=world.repository, live=None, broker_epoch="log-1", learner=bell
        )
        position = await agent.assigned(frozenset({0}), world.bus)

        async def record() -> None:
            for topic in agent.topics:
                for record in world.bus.records(topic, start=position[topic, 0]):
                    await agent.handle(record)
                    position[topic, 0] = record.offset + 1
            await agent.tick(0.0)

        await record()
        assert bell.heard == []
        world.ask(command("r-1", CommandKind.ABORT))
        await world.catch_up(judge)
        world.obey(world.decisions()[-1])
        await world.catch_up(judge)
        await record()
        await record()
    assert bell.heard == [Phase.ABORTED]
    world.engine.dispose()
