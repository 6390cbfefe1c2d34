"""Argo's tables against its own published rows, and the judge by columns against them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.judging.argo import ArgoRule, Counters, Metric, Status, assess_metric_status, counted, measured
from bench.judging.cells import SLO, STEP_TICKS, Cell
from tests.bench.peer_cells import agrees, cell_of, counts, fire_rate, restless, steady

DATA = os.environ.get("SENTRA_DATA")
ROWS = Path(DATA or ".", "peer-cases", "argo_assess_metric_status.json")
needs_data = pytest.mark.skipif(not ROWS.exists(), reason="set SENTRA_DATA to the folder with peer-cases")


def published() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(ROWS.read_text()) if ROWS.exists() else []
    return rows


def metric_of(row: dict[str, Any]) -> Metric:
    given = row["metric"]
    return Metric(
        count=given["count"],
        interval_s=given["interval"],
        failure_limit=given["failureLimit"],
        inconclusive_limit=given["inconclusiveLimit"],
        consecutive_error_limit=given["consecutiveErrorLimit"],
        consecutive_success_limit=given["consecutiveSuccessLimit"],
    )


def counters_of(row: dict[str, Any]) -> Counters:
    given = row["result"]
    return Counters(
        successful=given["successful"],
        failed=given["failed"],
        inconclusive=given["inconclusive"],
        error=given["error"],
        consecutive_error=given["consecutiveError"],
        consecutive_success=given["consecutiveSuccess"],
        count=given["count"],
    )


@needs_data
def test_all_published_rows_are_there() -> None:
    assert len(published()) == 21


@needs_data
@pytest.mark.parametrize("row", published(), ids=lambda row: row["expected"])
def test_a_metrics_status_is_the_published_one(row: dict[str, Any]) -> None:
    metric, counters = metric_of(row), counters_of(row)
    assert assess_metric_status(metric, counters).value == row["expected"]
    assert assess_metric_status(metric, counters, terminating=True).value == row["expected_terminating"]


@pytest.mark.parametrize(
    ("metric", "counters", "running", "terminating"),
    [
        (Metric(interval_s=60, failure_limit=2), Counters(failed=3, count=3), "Failed", "Failed"),
        (Metric(interval_s=60, failure_limit=3), Counters(failed=3, count=3), "Running", "Successful"),
        (
            Metric(count=10, interval_s=60, failure_limit=4, consecutive_success_limit=4),
            Counters(failed=4, successful=6, consecutive_success=3, count=10),
            "Inconclusive",
            "Inconclusive",
        ),
        (Metric(interval_s=60), Counters(consecutive_error=5), "Error", "Error"),
        (Metric(interval_s=60), Counters(consecutive_error=4), "Running", "Successful"),
        (Metric(interval_s=60), Counters(failed=1, inconclusive=1), "Inconclusive", "Inconclusive"),
        (Metric(interval_s=60), Counters(failed=1, inconclusive=1, consecutive_error=5), "Error", "Error"),
        (Metric(), Counters(successful=1, count=1), "Successful", "Successful"),
        (Metric(interval_s=60), None, "Pending", "Successful"),
    ],
)
def test_a_metrics_status_is_the_worked_one(
    metric: Metric, counters: Counters | None, running: str, terminating: str
) -> None:
    assert assess_metric_status(metric, counters).value == running
    assert assess_metric_status(metric, counters, terminating=True).value == terminating


def test_a_measurement_in_flight_keeps_a_failed_metric_running() -> None:
    assert assess_metric_status(Metric(), Counters(failed=9), in_flight=True) is Status.RUNNING


@pytest.mark.parametrize(
    ("success", "failure", "status"),
    [
        (None, None, Status.SUCCESSFUL),
        (True, None, Status.SUCCESSFUL),
        (False, None, Status.FAILED),
        (None, True, Status.FAILED),
        (None, False, Status.SUCCESSFUL),
        (True, True, Status.FAILED),
        (False, False, Status.INCONCLUSIVE),
        (True, False, Status.SUCCESSFUL),
        (False, True, Status.FAILED),
    ],
)
def test_conditions_make_a_measurement(success: bool | None, failure: bool | None, status: Status) -> None:
    assert measured(success=success, failure=failure) is status


def test_nothing_compares_with_nan_so_only_both_conditions_are_inconclusive() -> None:
    nan = float("nan")
    assert measured(success=nan >= 0.9, failure=None) is Status.FAILED
    assert measured(success=nan >= 0.9, failure=nan < 0.9) is Status.INCONCLUSIVE


def test_an_error_is_no_measurement_but_ends_a_run_of_successes() -> None:
    counters = Counters()
    for status in (Status.SUCCESSFUL, Status.SUCCESSFUL, Status.ERROR, Status.ERROR):
        counters = counted(counters, status)
    assert counters == Counters(successful=2, error=2, consecutive_error=2, count=2)
    assert counted(counters, Status.INCONCLUSIVE) == Counters(successful=2, error=2, inconclusive=1, count=3)


def first_abort(cell: Cell, rollout: int, failure_limit: int, *, background: bool) -> int:
    """The rule played measurement by measurement: a run per step, or one over all."""
    metric = Metric(interval_s=60, failure_limit=failure_limit)
    n, bad = cell.live.canary_n[rollout], cell.live.canary_s[rollout]
    counters = Counters()
    for end in range(12, len(n) + 1, 12):
        if not background and (end - 12) % STEP_TICKS == 0:
            counters = Counters()
        asked, failed = n[end - 12 : end].sum(), bad[end - 12 : end].sum()
        value = failed / asked if asked else float("nan")
        counters = counted(counters, measured(success=bool(value <= SLO), failure=None))
        if assess_metric_status(metric, counters) is Status.FAILED:
            return end - 1
    return -1


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("failure_limit", [0, 1, 3])
def test_the_judge_by_columns_is_the_judge_by_measurements(failure_limit: int, background: bool) -> None:
    cell = restless(60, seed=failure_limit)
    rule = ArgoRule(name="argo", failure_limit=failure_limit, background=background)
    played = [first_abort(cell, each, failure_limit, background=background) for each in range(60)]
    assert len(set(played)) > 3
    np.testing.assert_array_equal(rule.first_rollback(cell), played)


def test_a_ratio_exactly_at_the_limit_keeps_it() -> None:
    n = np.full((1, 300), 100.0)
    rule = ArgoRule(name="argo", failure_limit=0)
    assert rule.first_rollback(cell_of(counts(n, n / 100, n, 0 * n))) == -1
    assert rule.first_rollback(cell_of(counts(n, n / 50, n, 0 * n))) > 0


@pytest.mark.parametrize(
    ("failure_limit", "rps", "rate", "published"),
    [
        (0, 10, 0.005, 0.983),
        (0, 100, 0.005, 0.631),
        (0, 1000, 0.008, 0.558),
        (3, 10, 0.005, 0.028),
        (3, 10, 0.008, 0.181),
        (3, 100, 0.008, 0.062),
    ],
)
def test_healthy_rollouts_are_rolled_back_as_often_as_published(
    failure_limit: int, rps: int, rate: float, published: float
) -> None:
    fired = fire_rate(
        ArgoRule(name="argo", failure_limit=failure_limit).first_rollback(steady(rps, rate, 2000, 7))
    )
    assert agrees(fired, 2000, published)
