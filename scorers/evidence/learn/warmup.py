"""Warm-up margins learnt from finished healthy rollouts: how much worse fresh canaries looked, and for how
long.

In each block of ten seconds after a weight change, events of the canary are compared with what stable's rate
at the same ticks would have given it, summed over rollouts; the first step, with fresh processes, apart from
the later ones. A ratio of sums, started at the unlearnt margin of five, raised by two standard errors between
rollouts, but by doubt alone never above the unlearnt margin. A block too thin to say is held to be no
better than the whole warm-up.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from domain.calibration import UNLEARNT_MARGIN, WARMUP_BLOCK_S
from scorers.evidence.learn.history import History
from scorers.evidence.learn.schedule import seconds_at_weight
from scorers.evidence.learn.split import Split
from scorers.evidence.margins import block_at
from scorers.evidence.types import Bools, Floats, Ints

_PRIOR_EVENTS = 2.5
_PRIOR_EXPECTED = 0.5
"""Events seen and expected before any data: a ratio of five."""
_TOO_WIDE = 0.3
"""Standard error, as a share of the ratio, above which a block alone does not say enough."""

Margins = tuple[tuple[float, ...], tuple[float, ...]]


def learnt_margins(split: Split, history: History, window_s: float) -> Margins:
    """Margins by block of the warm-up, first step and later steps; at least one block each.

    ``split`` is the canary against stable. Nothing but empty blocks gives five.
    """
    blocks = max(1, ceil(window_s / WARMUP_BLOCK_S))
    block_of = _blocks(history, blocks)
    first, later = history.step == 0, history.step > 0
    return _by_block(split, block_of, first, blocks), _by_block(split, block_of, later, blocks)


def _blocks(history: History, blocks: int) -> Ints:
    """By tick, its block of the warm-up; ``blocks`` afterwards."""
    seconds = np.minimum(seconds_at_weight(history), blocks * WARMUP_BLOCK_S)
    moments, moment_of = np.unique(seconds, return_inverse=True)
    block_of = np.array([min(blocks, block_at(float(at))) for at in moments], dtype=np.int64)
    return np.asarray(block_of[moment_of.reshape(seconds.shape)])


def _by_block(split: Split, block_of: Ints, in_step: Bools, blocks: int) -> tuple[float, ...]:
    seen = np.where(split.has_both_arms, split.s_1, 0.0)
    stable_n = np.where(split.has_both_arms, split.n_2, 1.0)
    expected = np.where(split.has_both_arms, split.n_1 * split.s_2 / stable_n, 0.0)
    warming = in_step & (block_of < blocks)
    window = _ratio(_per_run(seen, warming), _per_run(expected, warming))
    return tuple(
        _margin(_ratio(_per_run(seen, inside), _per_run(expected, inside)), window)
        for inside in (in_step & (block_of == block) for block in range(blocks))
    )


def _per_run(values: Floats, where: Bools) -> Floats:
    return np.asarray(np.where(where, values, 0.0).sum(axis=1), dtype=np.float64)


def _ratio(seen: Floats, expected: Floats) -> tuple[float, float]:
    """Events seen over events expected, and its standard error; one entry per run."""
    weight = float(expected.sum()) + _PRIOR_EXPECTED
    ratio = (float(seen.sum()) + _PRIOR_EVENTS) / weight
    spread = float(((seen - ratio * expected) ** 2).sum()) + ratio**2 / 4.0
    return ratio, spread**0.5 / weight


def _margin(block: tuple[float, float], window: tuple[float, float]) -> float:
    ratio, error = block
    if error > _TOO_WIDE * ratio:
        ratio = max(ratio, window[0])
        error = min(error, max(window[1], _TOO_WIDE * ratio))
    return max(1.0, min(ratio + 2.0 * error, max(ratio, UNLEARNT_MARGIN)))
