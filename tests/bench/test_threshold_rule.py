"""The threshold judge by columns, against the judge and the machine that run in production."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bench.judging.cells import Cell
from bench.judging.threshold_rule import FAIL, ThresholdRule
from domain.records import SignalInput
from domain.rollout import Phase
from domain.signal import Arm
from domain.verdict import Verdict
from scorers.fold import fold
from tests.bench.peer_cells import cell_of, counts, restless, steady
from tests.scorers.situations import ERRORS, T0, policy, spec
from tests.scorers.telemetry import tick, warm

VERDICTS = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.SEVERE)
Told = tuple[Verdict, bool]


def folded(cell: Cell, rollout: int, warmup_s: float = 30.0) -> tuple[list[Told], int]:
    """What the product, fed with these counts in one endless step, says each tick and when it rolls back."""
    rules = policy(warmup_s=warmup_s, min_step_time_s=50_000.0, max_step_time_s=60_000.0, gates=(ERRORS,))
    before, live, told, rolled_back = warm(spec(rules)), cell.live, [], -1
    for position in range(live.canary_n.shape[1]):
        end = T0 + 5.0 * (position + 1)
        signals = tuple(
            SignalInput(
                "error_rate", arm, end - 5.0, float(s[rollout, position]), float(n[rollout, position])
            )
            for arm, n, s in (
                (Arm.CANARY, live.canary_n, live.canary_s),
                (Arm.STABLE, live.stable_n, live.stable_s),
            )
        )
        after = fold(before, tick(end, signals))
        before = after.fold
        told += [(score.verdict, score.shared) for score in after.evaluation.scores]
        if rolled_back < 0 and before.state.phase is Phase.ROLLING_BACK:
            rolled_back = position
    return told, rolled_back


def wavering(rollouts: int, seed: int, ticks: int) -> Cell:
    """Long spells of a canary near its limit: it pauses, recovers, and at times never does."""
    random = np.random.default_rng(seed)
    spells = (rollouts, ticks // 30)
    rate = np.repeat(random.choice([0.001, 0.015, 0.02, 0.025], spells, p=[0.3, 0.3, 0.3, 0.1]), 30, axis=1)
    stable_rate = np.repeat(random.choice([0.001, 0.03], spells, p=[0.8, 0.2]), 30, axis=1)
    n = np.full((rollouts, ticks), 60)
    bad, stable_bad = random.binomial(n, rate), random.binomial(5 * n, stable_rate)
    return cell_of(counts(n * 1.0, bad * 1.0, n * 5.0, stable_bad * 1.0))


@pytest.mark.parametrize("warmup_s", [0.0, 30.0])
@pytest.mark.parametrize("make", [restless, wavering])
def test_verdicts_and_roll_backs_are_the_products_tick_by_tick(
    make: Callable[[int, int, int], Cell], warmup_s: float
) -> None:
    cell = make(30, 5, 240)
    rule = ThresholdRule(step_ticks=240, warmup_s=warmup_s)
    verdict, shared = rule.verdicts(cell.live)
    ends, seen = [], set()
    for rollout in range(30):
        told, rolled_back = folded(cell, rollout, warmup_s)
        mine = zip(verdict[rollout].tolist(), shared[rollout].tolist(), strict=True)
        assert [(VERDICTS[code], flag) for code, flag in mine] == told
        ends.append(rolled_back)
        seen.update(told)
    assert seen >= {(each, False) for each in VERDICTS[:3]} | {(Verdict.FAIL, True)}
    assert len(set(ends)) > 3
    np.testing.assert_array_equal(rule.first_rollback(cell), ends)


def test_each_step_is_judged_by_its_own_ticks() -> None:
    whole = restless(30, 9, 120).live
    rule = ThresholdRule()
    halves = [
        counts(*(each[:, some] for each in (whole.canary_n, whole.canary_s, whole.stable_n, whole.stable_s)))
        for some in (slice(60), slice(60, None))
    ]
    apart = np.concatenate([rule.verdicts(half)[0] for half in halves], axis=1)
    np.testing.assert_array_equal(rule.verdicts(whole)[0], apart)


def test_a_failure_that_does_not_recover_goes_down_after_the_pause() -> None:
    n = np.full((1, 300), 100.0)
    bad = np.full((1, 300), 3.0)
    rule = ThresholdRule()
    cell = cell_of(counts(n, bad, n, 0 * n))
    first_fail = int(np.argmax(rule.verdicts(cell.live)[0][0] == FAIL))
    assert first_fail < rule.warmup_ticks
    assert rule.first_rollback(cell) == rule.warmup_ticks + 600 // 5


def test_a_failure_shared_with_stable_never_goes_down() -> None:
    n = np.full((1, 300), 100.0)
    bad = np.full((1, 300), 3.0)
    assert ThresholdRule().first_rollback(cell_of(counts(n, bad, n, bad))) == -1


def test_healthy_rollouts_far_from_the_limit_live() -> None:
    assert (ThresholdRule().first_rollback(steady(100, 0.001, 500, 3)) == -1).all()
