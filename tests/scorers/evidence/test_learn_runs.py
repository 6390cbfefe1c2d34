"""From runs to a calibration: which rollouts and edges count, and what a rollout makes of it."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from domain.calibration import Calibration, Tier
from domain.policy import Policy
from domain.records import Evaluation
from domain.rollout import Phase
from scorers.evidence.learn.calibrate import MIN_ROLLOUTS
from scorers.evidence.learn.extract import extract
from scorers.evidence.learn.run import Run
from scorers.evidence.learn.runs import HALVES_FACTOR, Finished, history_of, learn
from scorers.replay import verify
from tests.scorers.evidence.finished_rollouts import ERRORS, Traffic, evident, finished

LATENCY_EDGES = (100.0, 200.0, 200.0, 400.0, 400.0)
"""Nearest to p50, p75, p90, p95 and p99 of the tests' latencies."""


@cache
def healthy(seed: int, *, has_halves: bool = True, bad_share: float = 0.004) -> Finished:
    return taught(seed, Traffic(has_halves=has_halves, bad_share=bad_share))


def taught(seed: int, traffic: Traffic, **more: Any) -> Finished:
    found = extract(finished(f"r-{seed}", seed, traffic, **more))
    assert found.run is not None
    return Finished(rollout_id=f"r-{seed}", is_healthy=found.is_healthy, run=found.run)


def must(calibration: Calibration | None) -> Calibration:
    assert calibration is not None
    return calibration


@pytest.fixture(scope="module")
def twenty() -> list[Finished]:
    return [healthy(seed) for seed in range(MIN_ROLLOUTS)]


def test_twenty_healthy_rollouts_teach_every_gate(twenty: list[Finished]) -> None:
    found = must(learn(twenty, max_runs=200))
    assert (found.tier, found.runs, found.interval_s) == (Tier.R2, 20, 5.0)
    assert (found.first_rollout, found.last_rollout) == ("r-19", "r-0"), "the newest comes first"
    assert found.edges == {"latency_ms": LATENCY_EDGES}
    assert set(found.laws) == {"error_rate", "latency_ms>100", "latency_ms>200", "latency_ms>400"}
    assert found.rates["error_rate"] == pytest.approx(0.004, rel=0.1)
    assert (found.warmup_s, found.alpha) == (10.0, 0.01)


def test_the_rate_of_a_limit_between_edges_is_what_may_be_slower(twenty: list[Finished]) -> None:
    found = must(learn(twenty, max_runs=200))
    assert found.rates["latency_ms>500"] == found.rates["latency_ms>400"]


def test_fewer_healthy_rollouts_teach_what_stables_replicas_say(twenty: list[Finished]) -> None:
    found = must(learn(twenty[:-1], max_runs=200))
    assert (found.tier, found.runs) == (Tier.R1, 19)
    assert not any(law.has_learnt_warmup for law in found.laws.values())
    assert pytest.approx(1.5**0.5) == HALVES_FACTOR


def test_fewer_healthy_rollouts_without_replicas_teach_nothing() -> None:
    assert learn([healthy(seed, has_halves=False) for seed in range(19)], max_runs=200) is None
    assert learn([], max_runs=200) is None


def test_the_canary_of_an_unhealthy_rollout_teaches_nothing_but_its_stable_does(
    twenty: list[Finished],
) -> None:
    bad = taught(99, Traffic(worse=30.0))
    assert not bad.is_healthy
    with_bad = [bad, *twenty]
    assert learn(with_bad, max_runs=200) == learn(twenty, max_runs=200)
    few = must(learn([bad, *twenty[:18]], max_runs=200))
    assert (few.tier, few.runs, few.last_rollout) == (Tier.R1, 19, "r-99")
    of_bad = history_of([bad], ["error_rate"]).series["error_rate"]
    assert not of_bad.s_c.any() and not of_bad.n_c.any() and of_bad.s_h.any()


def test_only_the_newest_rollouts_count(twenty: list[Finished]) -> None:
    worse = [healthy(seed, bad_share=0.01) for seed in range(100, 100 + MIN_ROLLOUTS)]
    found = must(learn([*worse, *twenty], max_runs=MIN_ROLLOUTS))
    assert found == must(learn(worse, max_runs=200))
    assert found.rates["error_rate"] == pytest.approx(0.01, rel=0.1)


def test_a_gate_that_is_new_is_judged_cold_and_the_others_keep_what_was_learnt(
    twenty: list[Finished],
) -> None:
    only_errors = [
        Finished(rollout_id=each.rollout_id, is_healthy=True, run=without_latency(each.run))
        for each in twenty
    ]
    found = must(learn([healthy(50), *only_errors], max_runs=200))
    assert (found.tier, set(found.laws), found.edges) == (Tier.R2, {"error_rate"}, {})


def without_latency(run: Run) -> Run:
    kept = {name: counts for name, counts in run.series.items() if name == "error_rate"}
    return replace(run, series=kept, signals=("error_rate",), limits={}, edges={})


def test_runs_from_before_the_buckets_changed_do_not_choose_edges(twenty: list[Finished]) -> None:
    changed = [
        Finished(rollout_id=each.rollout_id, is_healthy=True, run=without_edge(each.run, 200.0))
        for each in twenty
    ]
    found = must(learn([*changed, *twenty], max_runs=200))
    assert 200.0 not in found.edges["latency_ms"]
    assert found.runs == 40, "at the edges that both have, older ones count"


def without_edge(run: Run, edge: float) -> Run:
    kept = {name: counts for name, counts in run.series.items() if name != f"latency_ms>{edge:g}"}
    edges = tuple(one for one in run.edges["latency_ms"] if one != edge)
    return replace(run, series=kept, edges={"latency_ms": edges})


def test_rollouts_of_any_length_lie_side_by_side(twenty: list[Finished]) -> None:
    longer = taught(7, Traffic(), rules=evident(min_step_time_s=80.0))
    history = history_of([twenty[0], longer], ["error_rate"])
    short = twenty[0].run.ticks
    assert history.step.shape == (2, longer.run.ticks) and longer.run.ticks > short
    assert (history.step[0, short:] == -1).all() and (history.step[1] >= 0).all()
    assert not history.series["error_rate"].n_b[0, short:].any()


# What a rollout makes of it.


def tiers(rollout_id: str, seed: int, known: Calibration | None, rules: Policy | None = None) -> set[str]:
    evaluations = finished(rollout_id, seed, rules=rules, calibration=known)
    assert evaluations[-1].phase is Phase.PROMOTED
    assert verify(stored(evaluations)) == []
    return {one.evidence.tier for each in evaluations for one in each.scores if one.evidence is not None}


def stored(evaluations: list[Evaluation]) -> list[Evaluation]:
    """As they come back from the store."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(evaluations), type=list[Evaluation])


def test_a_rollout_is_judged_by_what_was_learnt_and_replays_to_the_last_bit(twenty: list[Finished]) -> None:
    known = must(learn(twenty, max_runs=200))
    assert tiers("r-next", 30, known) == {"R2"}
    assert tiers("r-next", 30, None) == {"R0"}
    assert tiers("r-next", 30, must(learn(twenty[:5], max_runs=200))) == {"R1"}


def test_what_was_learnt_survives_the_wire_and_judges_the_same(twenty: list[Finished]) -> None:
    known = must(learn(twenty, max_runs=200))
    again = msgspec.json.decode(msgspec.json.encode(known), type=Calibration)
    assert again == known
    assert finished("r-x", 31, calibration=again) == finished("r-x", 31, calibration=known)


def test_a_regression_is_found_sooner_than_without_history(twenty: list[Finished]) -> None:
    known = must(learn(twenty, max_runs=200))
    worse = Traffic(worse=6.0)
    rules = evident(gates=(ERRORS,))
    cold = [finished("r-y", seed, worse, rules=rules) for seed in range(40, 44)]
    warm = [finished("r-y", seed, worse, rules=rules, calibration=known) for seed in range(40, 44)]
    assert {each[-1].phase for each in warm} == {Phase.ROLLED_BACK}
    assert sum(map(len, warm)) < sum(map(len, cold))
