"""Calibrations and finished runs on both databases: stored once, asked for by place, frozen into rollouts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import Engine, inspect

from domain.calibration import Calibration, Law, Tier
from domain.policy import JudgeName
from domain.rollout import Phase
from store.calibrations import Calibrations, Place, StoredRun
from store.database import downgrade, open_engine, upgrade
from store.repository import Repository
from tests.store.examples import T0, evaluation, policy, spec, start, started

SHOP = Place(service="checkout", environment="prod-eu", interval_s=5.0)
LAW = Law(tau=0.1 + 0.2, memory_s=100.0, warmup_margin=((4.0, 1 / 3), (1.5,)), has_learnt_warmup=True)


def known(**changes: Any) -> Calibration:
    plain = Calibration(
        tier=Tier.R2, interval_s=5.0, laws={"error_rate": LAW}, threshold=5.5214609178, runs=20, learnt_at=T0
    )
    return replace(plain, **changes)


def run(rollout_id: str = "r1", at: float = T0, **changes: Any) -> StoredRun:
    fields: dict[str, Any] = {
        "service": "checkout",
        "environment": "prod-eu",
        "interval_s": 5.0,
        "outcome": Phase.PROMOTED,
        "is_healthy": True,
        "run": b"\x00counts",
    }
    return StoredRun(rollout_id=rollout_id, at=at, **(fields | changes))


@pytest.fixture
def calibrations(engine: Engine) -> Calibrations:
    return Calibrations(engine)


def test_a_calibration_comes_back_as_it_was_learnt(calibrations: Calibrations) -> None:
    stored = calibrations.add(SHOP, known())
    assert stored is not None and stored.version == 1
    assert calibrations.newest(SHOP) == stored
    assert stored.calibration == known()


def test_each_service_and_environment_counts_its_own_versions(calibrations: Calibrations) -> None:
    elsewhere = Place(service="checkout", environment="prod-us", interval_s=5.0)
    slower = Place(service="checkout", environment="prod-eu", interval_s=10.0)
    places = (SHOP, SHOP, elsewhere, slower)
    added = [calibrations.add(place, known(runs=20 + at)) for at, place in enumerate(places)]
    assert [each.version for each in added if each is not None] == [1, 2, 1, 3]
    newest = calibrations.newest(SHOP)
    assert newest is not None and newest.calibration.runs == 21
    listed = [(each.environment, each.version) for each in calibrations.list_newest()]
    assert listed == [("prod-eu", 2), ("prod-eu", 3), ("prod-us", 1)]


def test_what_says_nothing_new_is_no_new_version(calibrations: Calibrations) -> None:
    assert calibrations.add(SHOP, known()) is not None
    assert calibrations.add(SHOP, known(learnt_at=T0 + 60)) is None
    again = calibrations.add(SHOP, known(runs=21))
    assert again is not None and again.version == 2


def test_two_learners_store_two_versions(calibrations: Calibrations) -> None:
    with ThreadPoolExecutor(2) as pool:
        added = list(pool.map(lambda runs: calibrations.add(SHOP, known(runs=runs)), [20, 21]))
    assert sorted(each.version for each in added if each is not None) == [1, 2]


def test_a_run_is_remembered_once(calibrations: Calibrations) -> None:
    assert calibrations.remember(run())
    assert not calibrations.remember(run(is_healthy=False))
    assert calibrations.runs(SHOP, since=0.0, limit=10) == [run()]
    assert calibrations.counts(SHOP) == (1, 1)


def test_runs_are_asked_for_by_place_age_and_health_newest_first(calibrations: Calibrations) -> None:
    for at in range(4):
        calibrations.remember(run(f"r{at}", T0 + at, is_healthy=at != 2))
    calibrations.remember(run("slow", interval_s=10.0))
    calibrations.remember(run("other", service="cart"))
    calibrations.remember(run("empty", T0 + 9, run=b""))

    def ids(**asked: Any) -> list[str]:
        return [each.rollout_id for each in calibrations.runs(SHOP, **({"since": 0.0, "limit": 9} | asked))]

    assert ids() == ["r3", "r2", "r1", "r0"]
    assert ids(limit=2) == ["r3", "r2"]
    assert ids(since=T0 + 1) == ["r3", "r2"]
    assert ids(is_healthy=True) == ["r3", "r1", "r0"]
    assert ids(is_healthy=False) == ["r2"]
    assert calibrations.counts(SHOP) == (4, 3)
    assert calibrations.ended_at(["r3", "nobody"]) == {"r3": T0 + 3}
    assert [(each.service, each.interval_s) for each in calibrations.places()] == [
        ("cart", 5.0),
        ("checkout", 5.0),
        ("checkout", 10.0),
    ]


def test_runs_wait_to_be_learnt_from_until_they_are_marked(calibrations: Calibrations) -> None:
    calibrations.remember(run("r1"))
    calibrations.remember(run("r2"))
    calibrations.remember(run("empty", run=b""))
    assert {place: sorted(ids) for place, ids in calibrations.unlearnt().items()} == {SHOP: ["r1", "r2"]}
    calibrations.mark_learnt(["r1"])
    assert calibrations.unlearnt() == {SHOP: ["r2"]}


def test_rollouts_that_ended_wait_to_be_remembered(engine: Engine, calibrations: Calibrations) -> None:
    repository = Repository(engine)
    for rollout_id, service in (("r1", "checkout"), ("r2", "cart"), ("r3", "search")):
        begun = spec(rollout_id, service)
        repository.start_rollout(begun, start(begun))
        repository.append([started(begun)])
    for rollout_id in ("r1", "r2"):
        repository.append([evaluation(2, rollout_id, phase=Phase.PROMOTED)])
    assert sorted(calibrations.unremembered(since=0.0, limit=9)) == ["r1", "r2"]
    assert len(calibrations.unremembered(since=0.0, limit=1)) == 1
    assert calibrations.unremembered(since=T0 + 60, limit=9) == []
    calibrations.remember(run("r1"))
    assert calibrations.unremembered(since=0.0, limit=9) == ["r2"]
    repository.prune(T0 + 60, now=T0 + 99)
    assert calibrations.unremembered(since=0.0, limit=9) == [], "its evaluations are gone"


def test_a_rollout_starts_with_the_newest_calibration_that_fits_its_policy(
    calibrations: Calibrations,
) -> None:
    wanted = replace(spec(), policy=policy(judge=JudgeName.EVIDENCE))
    assert calibrations.frozen_into(wanted) == wanted
    calibrations.add(SHOP, known(runs=20))
    calibrations.add(SHOP, known(runs=21))
    slower = Place(service="checkout", environment="prod-eu", interval_s=10.0)
    calibrations.add(slower, known(runs=22, interval_s=10.0))
    frozen = calibrations.frozen_into(wanted).calibration
    assert frozen is not None and frozen.runs == 21
    every_ten = replace(wanted, policy=policy(judge=JudgeName.EVIDENCE, interval_s=10.0))
    frozen = calibrations.frozen_into(every_ten).calibration
    assert frozen is not None and frozen.runs == 22
    assert calibrations.frozen_into(replace(wanted, environment="prod-us")).calibration is None


def test_what_an_older_rollout_knew_is_not_what_its_retry_knows(calibrations: Calibrations) -> None:
    old = replace(spec(), policy=policy(judge=JudgeName.EVIDENCE), calibration=known(runs=99))
    assert calibrations.frozen_into(old).calibration is None


def test_the_threshold_judge_is_told_nothing(calibrations: Calibrations) -> None:
    calibrations.add(SHOP, known())
    assert calibrations.frozen_into(spec()).calibration is None


def test_a_frozen_calibration_is_stored_bit_for_bit_with_its_rollout(
    engine: Engine, calibrations: Calibrations
) -> None:
    calibrations.add(SHOP, known())
    frozen = calibrations.frozen_into(replace(spec(), policy=policy(judge=JudgeName.EVIDENCE)))
    repository = Repository(engine)
    repository.start_rollout(frozen, start(frozen))
    stored = repository.get_rollout("r1")
    assert stored is not None and stored.spec.calibration == known()


def test_the_migration_goes_down_and_up_again_with_calibrations_in_it(url: str) -> None:
    engine = open_engine(url)
    calibrations = Calibrations(engine)
    calibrations.add(SHOP, known())
    calibrations.remember(run())
    downgrade(url, "0001")
    tables = set(inspect(engine).get_table_names())
    assert "calibrations" in tables and "calibration_runs" not in tables
    assert "signal" in {column["name"] for column in inspect(engine).get_columns("calibrations")}
    upgrade(url)
    assert calibrations.newest(SHOP) is None and calibrations.places() == []
    assert calibrations.add(SHOP, known()) is not None
    engine.dispose()
