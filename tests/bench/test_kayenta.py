"""Kayenta's own cases, scipy as oracle, and the judge by rows against the judge of one pair."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from bench.judging.cells import Floats
from bench.judging.kayenta import (
    Classification,
    Direction,
    Effect,
    Label,
    Missing,
    Settings,
    classify,
    effect_size,
    judge,
    outliers,
)
from bench.judging.kayenta_mann_whitney import brent, shift, standardised
from bench.judging.kayenta_rows import standardised as standardised_rows
from bench.judging.kayenta_rule import SETTINGS, KayentaRule, ends_canary
from bench.judging.kayenta_score import Judged, Outcome, ends_early, outcome, score
from tests.bench.peer_cells import cell_of, counts, fire_rate, restless, steady

DATA = os.environ.get("SENTRA_DATA")
CASES = Path(DATA or ".", "peer-cases", "kayenta_classifier_cases.json")
needs_data = pytest.mark.skipif(not CASES.exists(), reason="set SENTRA_DATA to the folder with peer-cases")
SUITE = Settings(tolerance=0.10, confidence=0.95)
"""The settings of Kayenta's own tests, which are not the product's."""


def published() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads(CASES.read_text()) if CASES.exists() else []
    return cases


def settings_of(case: dict[str, Any]) -> Settings:
    decrease, increase = case["effectSizeThresholds_allowedDecrease_allowedIncrease"]
    critical_decrease, critical_increase = case["criticalThresholds_decrease_increase"]
    return Settings(
        tolerance=case["tolerance"],
        confidence=case["confLevel"],
        direction=Direction(case["direction"]),
        missing=Missing(case["nanStrategy"]),
        critical=case["critical"],
        effect=Effect(case["effectSizeMeasure"]),
        allowed=(decrease, increase),
        critical_at=(critical_decrease, critical_increase),
    )


def values(given: Sequence[float]) -> Floats:
    return np.array(given, dtype=np.float64)


@needs_data
def test_all_published_cases_are_there() -> None:
    assert len(published()) == 34
    assert sum(case["expected_classification"] is None for case in published()) == 1


@needs_data
@pytest.mark.parametrize("case", published(), ids=lambda case: case["name"])
def test_a_classification_is_the_published_one(case: dict[str, Any]) -> None:
    """The case that publishes no class is about the text of a reason; by the rule it is critical Nodata."""
    found = judge(values(case["control"]), values(case["experiment"]), settings_of(case))
    assert found.label.value == (case["expected_classification"] or "Nodata")
    if case["expected_critical"] is not None:
        assert found.critical == case["expected_critical"]


LOW_FIVE, HIGH_FIVE = [1, 2.2, 1.1, 2.5, 3], [20, 22, 21, 25, 30]


@pytest.mark.parametrize(
    ("control", "experiment", "settings", "expected"),
    [
        (
            LOW_FIVE,
            HIGH_FIVE,
            Settings(tolerance=0.1, confidence=0.95, critical=True, critical_at=(1.0, 1.2)),
            Classification(Label.HIGH, critical=True),
        ),
        (
            LOW_FIVE,
            HIGH_FIVE,
            Settings(tolerance=0.1, confidence=0.95, critical=True, allowed=(1.0, 13.0)),
            Classification(Label.PASS),
        ),
        ([1] * 5, [1, 1, 1, 1, 10], SUITE, Classification(Label.PASS)),
        ([1] * 5, [10] * 5, SUITE, Classification(Label.HIGH)),
        ([1, 2], [], SUITE, Classification(Label.NODATA)),
        ([1, 2], [], Settings(critical=True), Classification(Label.NODATA, critical=True)),
        ([1, 2], [], Settings(must_have_data=True), Classification(Label.NODATA_FAIL_METRIC)),
        ([1, 2], [], Settings(missing=Missing.REPLACE), Classification(Label.PASS)),
        ([1, 2], [np.nan], SUITE, Classification(Label.NODATA)),
    ],
)
def test_a_classification_is_the_worked_one(
    control: list[float], experiment: list[float], settings: Settings, expected: Classification
) -> None:
    assert judge(values(control), values(experiment), settings) == expected


def test_an_interval_is_the_worked_one() -> None:
    found = shift(values([10, 20, 30, 40]), values([1, 2, 3, 4]), 0.95)
    assert (found.low, found.high, found.estimate) == (6.0, 39.0, 22.5)


def test_the_reported_blind_spots_are_reproduced() -> None:
    """Errors against a control without any; and an experiment that is bad seven times in ten."""
    errors = values([0, 0.048, 0, 0.18, 0.089, 0, 0.098, 0.035, 0, 0])
    assert classify(np.zeros(10), errors, SETTINGS).label is Label.PASS
    assert shift(errors, np.zeros(10), 0.98).low == 0.0
    seven, eight = (values([100.0] * bad + [1.0] * (10 - bad)) for bad in (7, 8))
    assert classify(np.ones(10), seven, SETTINGS).label is Label.PASS
    assert shift(seven, np.ones(10), 0.98).low == pytest.approx(6.8e-5, abs=5e-7)
    assert classify(np.ones(10), eight, SETTINGS).label is Label.HIGH


@pytest.mark.parametrize(("size", "published_share"), [(2, 0.107), (3, 0.025), (5, 0.0)])
def test_tiny_healthy_samples_are_high_as_often_as_measured(size: int, published_share: float) -> None:
    random = np.random.default_rng(size)
    pairs = random.lognormal(0.0, 0.5, (3000, 2, size))
    share = np.mean([classify(a, b, SETTINGS).label is Label.HIGH for a, b in pairs])
    assert abs(share - published_share) < 0.017


def test_a_score_is_scipys() -> None:
    random = np.random.default_rng(1)
    for _ in range(100):
        x, y = random.poisson(3, random.integers(2, 30)), random.poisson(4, random.integers(2, 30))
        if len(set(chain(x, y))) == 1:
            continue
        p = stats.mannwhitneyu(x, y, method="asymptotic", use_continuity=True).pvalue
        z = standardised(0.0, x.astype(float), y.astype(float))
        assert min(1.0, 2 * (1 - NormalDist().cdf(abs(z)))) == pytest.approx(p, abs=1e-9)


def test_an_interval_ends_at_differences_of_pairs() -> None:
    """Without ties the score crosses a level at an order statistic of all m·n differences."""
    random = np.random.default_rng(2)
    for _ in range(50):
        x, y = random.normal(1.0, 1.0, 15), random.normal(0.0, 1.0, 20)
        found = shift(x, y, 0.98)
        differences = np.sort((x[:, None] - y).ravel())
        reach = NormalDist().inv_cdf(0.99) * (15 * 20 * 36 / 12) ** 0.5
        most = 15 * 20 / 2 - 0.5 - reach
        assert found.low == pytest.approx(differences[int(np.floor(most))], abs=2e-4)
        assert found.high == pytest.approx(differences[-1 - int(np.floor(most))], abs=2e-4)
        assert differences[147] - 1e-4 <= found.estimate <= differences[152] + 1e-4


@pytest.mark.parametrize("root", [-3.0, 0.01, 2.5])
def test_a_root_is_scipys(root: float) -> None:
    def curve(at: float) -> float:
        return float(np.expm1(root - at) + (root - at) ** 3)

    theirs = optimize.brentq(curve, -9, 9, xtol=1e-4)
    assert brent(curve, -9, 9, curve(-9), curve(9), 1e-4) == pytest.approx(theirs, abs=1e-4)


def test_an_effect_is_the_share_of_pairs_or_a_ratio_of_means() -> None:
    control, experiment = values([1, 2, 3, 4]), values([2, 4, 6])
    share = stats.mannwhitneyu(experiment, control).statistic / 12
    assert effect_size(control, experiment, Effect.CLES) == pytest.approx(share)
    assert effect_size(control, experiment, Effect.MEAN_RATIO) == 1.6
    assert np.isnan(effect_size(np.zeros(3), experiment, Effect.MEAN_RATIO))


def test_outliers_lie_beyond_the_fences_and_the_outer_hundredths() -> None:
    seen = np.append(np.arange(200.0), 10_000.0)
    assert np.flatnonzero(outliers(seen, 3.0)).tolist() == [200]
    assert not outliers(np.arange(50.0), 3.0).any()
    far = Settings(outlier_factor=3.0, direction=Direction.INCREASE)
    assert judge(np.arange(200.0), seen, far).label is Label.PASS


def of(group: str, *labels: Label) -> list[Judged]:
    return [Judged(label=label, groups=(group,)) for label in labels]


@pytest.mark.parametrize(
    ("results", "weights", "expected"),
    [
        (of("g", Label.PASS), {}, 100.0),
        (of("g", Label.HIGH), {}, 0.0),
        (of("g", Label.NODATA), {}, 0.0),
        (of("g", Label.PASS, Label.PASS) + of("h", Label.NODATA), {}, 100.0),
        (of("g", Label.PASS, Label.HIGH, Label.LOW), {}, 33.33),
        (of("g", Label.PASS, Label.PASS) + of("h", Label.HIGH), {"g": 75, "h": 25}, 75.0),
        (of("g", Label.PASS, Label.NODATA) + of("h", Label.HIGH), {"g": 50, "h": 50}, 50.0),
        (of("g", Label.HIGH, Label.LOW, Label.PASS) + of("h", Label.HIGH), {"g": 15, "h": 85}, 5.0),
        (of("g", Label.PASS, Label.NODATA_FAIL_METRIC), {}, 50.0),
        (of("g", Label.PASS, Label.ERROR), {}, 100.0),
        (of("g", Label.PASS), {"g": 60, "gone": 40}, 60.0),
        ([*of("g", Label.PASS), Judged(label=Label.HIGH, critical=True)], {}, 0.0),
        ([*of("g", Label.PASS), Judged(label=Label.NODATA, critical=True)], {}, 0.0),
        ([*of("g", Label.LOW), Judged(label=Label.PASS, groups=("g",), critical=True)], {}, 50.0),
        ([*of("g", Label.PASS), Judged(label=Label.HIGH, critical=True, muted=True)], {}, 100.0),
    ],
)
def test_a_score_is_the_worked_one(results: list[Judged], weights: dict[str, float], expected: float) -> None:
    assert score(results, weights) == expected


def test_a_score_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one metric"):
        score([Judged(label=Label.PASS, muted=True)])


def test_the_marginal_score_itself_is_called_marginal_and_ends_the_canary() -> None:
    assert outcome(75, passing=95, marginal=75) is Outcome.MARGINAL
    assert ends_early(75, marginal=75)
    assert outcome(95, passing=95, marginal=75) is Outcome.PASS
    assert outcome(74.99, passing=95, marginal=75) is Outcome.FAIL


def test_scores_by_rows_are_the_scores_of_pairs() -> None:
    random = np.random.default_rng(3)
    x, y = random.poisson(2, (80, 20)).astype(float), random.poisson(2, (80, 25)).astype(float)
    x[random.random(x.shape) < 0.2] = np.nan
    mu = random.choice([0.0, 0.5, -1.0, 2.0], 80)
    pairs = [standardised(at, a[~np.isnan(a)], b) for at, a, b in zip(mu, x, y, strict=True)]
    np.testing.assert_array_equal(standardised_rows(mu, x, y), pairs)


@pytest.mark.parametrize("root_tolerance", [1e-4, 1e-2])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_judge_by_rows_is_the_judge_of_pairs(scale: float, root_tolerance: float) -> None:
    """On restless services, on steady ones near significance, and on counts so rare that nearly all tie."""
    settings = Settings(direction=Direction.INCREASE, root_tolerance=root_tolerance)
    random, seen = np.random.default_rng(4), 0
    for cell in (
        restless(40, 1),
        steady(100, 0.005, 40, 2, canary_rate=0.01),
        steady(10, 0.005, 40, 3, canary_rate=0.03),
        steady(1000, 0.005, 40, 4, canary_rate=0.0055),
        steady(1000, 0.005, 40, 5, canary_rate=0.01),
    ):
        n, s = cell.live.canary_n, cell.live.canary_s
        m, t = cell.live.stable_n, cell.live.stable_s
        for points in (6, 12, 36, int(random.integers(60, 120))):
            rows = slice(points)
            with np.errstate(invalid="ignore"):
                experiment, control = scale * (s / n)[:, rows], scale * (t / m)[:, rows]
            mine = ends_canary(control, experiment, settings)
            told = [judge(b, a, settings).label for a, b in zip(experiment, control, strict=True)]
            assert mine.tolist() == [label in (Label.HIGH, Label.NODATA) for label in told]
            seen += int(mine.sum())
    assert seen > 100


def test_a_canary_without_any_data_scores_nothing_and_ends() -> None:
    n = np.full((1, 300), 100.0)
    assert KayentaRule(name="kayenta").first_rollback(cell_of(counts(0 * n, 0 * n, n, 0 * n))) == 11


def test_the_window_grows_unless_a_lookback_is_asked_for() -> None:
    """Bad for two minutes after sixteen good ones: a sliding window sees it, a growing one does not."""
    random = np.random.default_rng(5)
    n = np.full((20, 300), 1000.0)
    stable = random.binomial(1000, 0.01, (20, 300)).astype(float)
    canary = random.binomial(1000, 0.01, (20, 300)).astype(float)
    canary[:, 192:216] = random.binomial(1000, 0.03, (20, 24))
    cell = cell_of(counts(n, canary, n, stable))
    sliding = KayentaRule(name="kayenta", lookback_s=120.0).first_rollback(cell)
    assert np.median(sliding) <= 215
    assert np.median(KayentaRule(name="kayenta").first_rollback(cell)) == -1


def test_fewer_rollouts_are_judged_on_request() -> None:
    cell = steady(1000, 0.005, 30, 6, canary_rate=0.05)
    some = KayentaRule(name="kayenta", rollouts=10).first_rollback(cell)
    np.testing.assert_array_equal(some, KayentaRule(name="kayenta").first_rollback(cell)[:10])


def test_settings_that_rows_do_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="increases of mean ratios"):
        KayentaRule(name="kayenta", settings=Settings())


def test_a_baseline_of_the_canarys_size_finds_a_regression_sooner_than_all_of_stable() -> None:
    cell = steady(100, 0.005, 60, 7, canary_rate=0.02)
    alike = KayentaRule(name="kayenta", baseline_seed=1).first_rollback(cell)
    whole = KayentaRule(name="kayenta").first_rollback(cell)
    assert fire_rate(alike) == fire_rate(whole) == 1.0
    assert np.median(alike) < np.median(whole) / 2
