"""When a history's ticks came in their rollouts: seconds at the weight, margins, and the prior of a start.

Rollouts that took their steps at the same ticks are handled together; simulated histories are one group, real
ones nearly as many as rollouts.
"""

from __future__ import annotations

import numpy as np

from domain.calibration import Law
from scorers.evidence.learn.history import History
from scorers.evidence.margins import margin_at
from scorers.evidence.prior import start_weight
from scorers.evidence.types import Bools, Floats, Ints


def seconds_at_weight(history: History) -> Floats:
    """By rollout and tick, seconds from the start of the weight's first tick to this one's; infinite before
    any."""
    ticks = np.arange(history.step.shape[1])
    opened = np.maximum.accumulate(np.where(history.opens_step, ticks, -1), axis=1)
    return np.where(opened >= 0, (ticks - opened) * history.interval_s, np.inf)


def groups(history: History) -> list[Ints]:
    """Rows of the rollouts that share a timetable, group by group."""
    marks = np.concatenate((history.step, history.opens_step, history.ends_warmup), axis=1)
    rows_by_marks: dict[bytes, list[int]] = {}
    for row, own in enumerate(marks):
        rows_by_marks.setdefault(own.tobytes(), []).append(row)
    return [np.array(rows, dtype=np.int64) for rows in rows_by_marks.values()]


def margins(history: History, law: Law, window_s: float) -> tuple[Floats, Bools]:
    """The margin of every tick and whether it is but an upper bound, see :func:`margin_at`."""
    seconds = seconds_at_weight(history)
    rho = np.ones(history.step.shape)
    is_bound = np.zeros(history.step.shape, dtype=np.bool_)
    for rows in groups(history):
        row = rows[0]
        for tick in np.flatnonzero(seconds[row] < window_s):
            step = int(history.step[row, tick])
            margin = margin_at(law, step, float(seconds[row, tick]), window_s)
            rho[rows, tick], is_bound[rows, tick] = margin
    return rho, is_bound


def start_weights(history: History, has_learnt_warmup: bool) -> Floats:
    """The prior of every tick that a regression begins with it; zero where there is no tick."""
    weights = np.zeros(history.step.shape)
    for rows in groups(history):
        row = rows[0]
        for tick in np.flatnonzero(history.step[row] >= 0):
            weights[rows, tick] = start_weight(
                int(tick) + 1,
                step=int(history.step[row, tick]),
                steps=history.steps,
                horizon=history.horizon,
                opens_step=bool(history.opens_step[row, tick]),
                ends_warmup=bool(history.ends_warmup[row, tick]),
                has_learnt_warmup=has_learnt_warmup,
            )
    return weights
