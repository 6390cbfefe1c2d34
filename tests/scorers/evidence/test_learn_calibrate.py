"""What judging takes from a history, whole: tiers, and what the calibration is worth on fresh rollouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import log

import msgspec
import numpy as np
import pytest

from domain.calibration import Calibration, Law, Tier
from scorers.evidence.learn.calibrate import Gates, calibrate
from scorers.evidence.learn.history import History, Series
from scorers.evidence.learn.split import canary_against_stable
from scorers.evidence.learn.threshold import log_evidence
from scorers.evidence.types import Floats
from tests.scorers.evidence.healthy_histories import (
    GATES,
    NAME,
    Service,
    cold_start,
    first_runs,
    history_of,
    of_replicas,
    wandering,
    without_anything,
    without_canary,
    without_halves,
)


def learnt(history: History, gates: Gates = GATES) -> Calibration | None:
    return calibrate(history, gates=gates, alpha=0.01, warmup_s=30.0, halves_factor=1.5**0.5)


def must(calibration: Calibration | None) -> Calibration:
    assert calibration is not None
    return calibration


@pytest.fixture(scope="module")
def plain() -> History:
    return history_of(Service(), seed=1, runs=100)


def test_twenty_rollouts_are_tier_r2_and_nineteen_are_r1(plain: History) -> None:
    assert must(learnt(first_runs(plain, 20))).tier is Tier.R2
    assert must(learnt(first_runs(plain, 19))).tier is Tier.R1


def test_only_rollouts_in_which_the_canary_was_seen_count(plain: History) -> None:
    one = plain.series[NAME]
    unseen = np.arange(100)[:, None] >= 19
    series = replace(one, s_c=np.where(unseen, 0.0, one.s_c), n_c=np.where(unseen, 0.0, one.n_c))
    found = must(learnt(replace(plain, series={NAME: series})))
    assert found.tier is Tier.R1
    assert found.runs == 100


def test_runs_in_which_nothing_was_seen_are_not_counted(plain: History) -> None:
    one = plain.series[NAME]
    silent = np.arange(100)[:, None] >= 60
    emptied = {key: np.where(silent, 0.0, getattr(one, key)) for key in Series.__slots__}
    history = replace(plain, series={NAME: Series(**emptied)})
    assert must(learnt(history)).runs == 60
    assert must(learnt(without_canary(history))).runs == 60


def test_without_halves_few_rollouts_teach_nothing(plain: History) -> None:
    assert learnt(without_halves(first_runs(plain, 19))) is None
    assert learnt(without_anything(plain)) is None


def test_every_series_of_the_gates_must_be_known(plain: History) -> None:
    both = {**GATES, "latency": ("latency_ms>250",)}
    assert learnt(plain, both) is None
    shorter = replace(plain, series={**plain.series, "latency_ms>250": without_canary(plain).series[NAME]})
    assert must(learnt(shorter, both)).tier is Tier.R1
    assert learnt(plain, {}) is None


def test_a_calibration_says_what_it_learnt_from(plain: History) -> None:
    found = must(learnt(plain))
    assert (found.tier, found.interval_s, found.warmup_s, found.runs, found.alpha) == (
        Tier.R2,
        5.0,
        30.0,
        100,
        0.01,
    )
    assert found.rates[NAME] == pytest.approx(0.005, rel=0.05)
    assert found.rps == pytest.approx(100.0, rel=0.01)
    assert set(found.laws) == set(found.halves) == {NAME}
    assert found.laws[NAME].has_learnt_warmup
    assert found.threshold is not None and found.threshold >= log(250)


def test_rollouts_without_halves_learn_dispersion_from_the_canary() -> None:
    found = must(learnt(without_halves(history_of(Service(rps=1000.0, cluster=4.0), 2, runs=60))))
    assert found.tier is Tier.R2
    assert 5.5 < found.laws[NAME].dispersion[5] < 9.0
    assert found.halves == {}


def test_stable_alone_teaches_a_wider_wander_and_no_warm_up() -> None:
    effect = wandering(3, 200, 0.3, 100.0)
    found = must(learnt(without_canary(history_of(Service(rps=1000.0, first_half_effect=effect), 3))))
    law, halves = found.laws[NAME], found.halves[NAME]
    assert found.tier is Tier.R1
    assert law.tau == pytest.approx(halves.tau * 1.5**0.5) and halves.tau > 0.2
    assert law.memory_s == halves.memory_s == 100.0
    assert not law.has_learnt_warmup and law.warmup_margin == Law().warmup_margin
    assert found.threshold is not None and found.threshold >= -log(0.007)


def test_a_calibration_is_the_same_each_time_and_survives_the_wire(plain: History) -> None:
    once, twice = must(learnt(plain)), must(learnt(plain))
    assert once == twice
    wire = msgspec.json.encode(once)
    assert msgspec.json.decode(wire, type=Calibration) == once


SERVICES: dict[str, tuple[Callable[[int, int], Service], float]] = {
    "independent": (lambda seed, runs: Service(), 0.08),
    "clustered": (lambda seed, runs: Service(cluster=4.0), 0.15),
    "replicas": (lambda seed, runs: Service(canary_effect=of_replicas(seed, runs, 0.3, 2, 10)), 0.37),
    "wandering": (lambda seed, runs: Service(canary_effect=wandering(seed, runs, 0.3, 100.0)), 0.45),
    "cold": (lambda seed, runs: Service(canary_effect=cold_start(4.0, 6)), 0.15),
}


@pytest.mark.parametrize("name", SERVICES)
def test_what_was_learnt_judges_fresh_rollouts_rightly(name: str) -> None:
    service_of, widest = SERVICES[name]
    found = must(learnt(history_of(service_of(11, 200), 11)))
    assert found.laws[NAME].tau <= widest
    healthy = largest(found, history_of(service_of(12, 400), 12, runs=400))
    assert (healthy >= must_threshold(found)).mean() <= 0.01
    service = service_of(13, 100)
    worse = replace(service, canary_effect=service.canary_effect + np.log(10.0))
    assert (largest(found, history_of(worse, 13, runs=100)) >= must_threshold(found)).mean() >= 0.99


def largest(found: Calibration, history: History) -> Floats:
    split = canary_against_stable(history.series[NAME])
    log_e = log_evidence(split, found.laws[NAME], history, window_s=40.0, has_learnt_warmup=True)
    return np.asarray(log_e.max(axis=1))


def must_threshold(found: Calibration) -> float:
    assert found.threshold is not None
    return found.threshold
