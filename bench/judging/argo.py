"""Argo Rollouts' AnalysisRun: a measurement against a condition, counters against limits.

``measured`` and ``assess_metric_status`` are the exact rules, tables over (value, conditions) and (limits,
counters, terminating); ``ArgoRule`` is what they make of the error gate.

Source: argoproj/argo-rollouts, ``utils/evaluate/evaluate.go`` and ``analysis/analysis.go``; restated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from bench.judging.cells import SLO, STEP_TICKS, Cell, Ints
from bench.judging.intervals import first_true, gathered, ratios, ticks_in


class Status(Enum):
    """Of a measurement, a metric or a run."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCESSFUL = "Successful"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"
    ERROR = "Error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """Limits of a metric, with Argo's defaults. All are exceeded only by *more* than the limit."""

    count: int | None = None
    interval_s: float | None = None
    failure_limit: int = 0
    """-1: any number of failures."""
    inconclusive_limit: int = 0
    consecutive_error_limit: int = 4
    consecutive_success_limit: int = 0
    """0: off."""

    @property
    def effective_count(self) -> int | None:
        """Measurements after which the metric is done; ``None`` for never."""
        return 1 if self.count is None and self.interval_s is None else self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What the measurements so far came to. ``count`` leaves errors out."""

    successful: int = 0
    failed: int = 0
    inconclusive: int = 0
    error: int = 0
    consecutive_error: int = 0
    consecutive_success: int = 0
    count: int = 0


def measured(*, success: bool | None, failure: bool | None) -> Status:
    """Status of a measurement whose conditions came out so; ``None`` is a condition not configured.

    Failure wins when both hold; without conditions everything succeeds. A condition that cannot be evaluated
    is the caller's ``Status.ERROR``.
    """
    failed = failure if failure is not None else success is not None and not success
    succeeded = success if success is not None else not failed
    if failed:
        return Status.FAILED
    return Status.SUCCESSFUL if succeeded else Status.INCONCLUSIVE


def counted(before: Counters, status: Status) -> Counters:
    """The counters after one more finished measurement."""
    if status is Status.ERROR:
        error, run = before.error + 1, before.consecutive_error + 1
        return replace(before, error=error, consecutive_error=run, consecutive_success=0)
    succeeded = status is Status.SUCCESSFUL
    return replace(
        before,
        successful=before.successful + succeeded,
        failed=before.failed + (status is Status.FAILED),
        inconclusive=before.inconclusive + (status is Status.INCONCLUSIVE),
        consecutive_error=0,
        consecutive_success=before.consecutive_success + 1 if succeeded else 0,
        count=before.count + 1,
    )


def assess_metric_status(
    metric: Metric, counters: Counters | None, *, terminating: bool = False, in_flight: bool = False
) -> Status:
    """Status of a metric. ``counters`` is ``None`` before the first measurement."""
    if counters is None:
        return Status.SUCCESSFUL if terminating else Status.PENDING
    if in_flight:
        return Status.RUNNING
    exceeded = _exceeded(metric, counters)
    if exceeded is not None:
        return exceeded
    wanted = metric.consecutive_success_limit
    if 0 < wanted <= counters.consecutive_success:
        return Status.SUCCESSFUL
    if metric.effective_count is not None and counters.count >= metric.effective_count:
        return _at_its_count(metric)
    return Status.SUCCESSFUL if terminating else Status.RUNNING


def _exceeded(metric: Metric, counters: Counters) -> Status | None:
    """The last exceeded limit wins: error over inconclusive over failed."""
    if counters.consecutive_error > metric.consecutive_error_limit:
        return Status.ERROR
    if counters.inconclusive > metric.inconclusive_limit:
        return Status.INCONCLUSIVE
    if 0 <= metric.failure_limit < counters.failed:
        return Status.FAILED
    return None


def _at_its_count(metric: Metric) -> Status:
    """All measurements taken and no limit exceeded; the run of successes may still be missing."""
    if metric.consecutive_success_limit == 0:
        return Status.SUCCESSFUL
    return Status.INCONCLUSIVE if metric.failure_limit >= 0 else Status.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgoRule:
    """``successCondition: result <= SLO`` on the error ratio of the last interval, first asked after one.

    A run whose metric fails aborts the rollout. By default each step has its own run (an ``analysis`` step
    after each weight); ``background`` is one run over all steps. Without traffic the ratio is NaN, no
    comparison holds, and a metric with only a success condition fails.
    """

    name: str
    failure_limit: int
    interval_s: float = 60.0
    limit: float = SLO
    background: bool = False

    def first_rollback(self, cell: Cell) -> Ints:
        ticks = ticks_in(self.interval_s)
        live = cell.live
        share = ratios(gathered(live.canary_s, ticks), gathered(live.canary_n, ticks))
        failed = np.cumsum(~(share <= self.limit), axis=1, dtype=np.int64)
        if not self.background:
            failed -= _at_the_step_before(failed, STEP_TICKS // ticks)
        return first_true(failed > self.failure_limit, ticks)


def _at_the_step_before(running: Ints, per_step: int) -> Ints:
    """The running count as the step of each measurement began."""
    padded = np.concatenate([np.zeros((running.shape[0], 1), running.dtype), running], axis=1)
    began = np.arange(running.shape[1]) // per_step * per_step
    return padded[:, began]
