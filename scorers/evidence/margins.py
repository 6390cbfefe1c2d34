"""Warm-up margins: how much worse than stable a healthy canary may look just after its weight changed.

Cold caches and empty pools fail requests of a version that is sound. Where history shows how much, the margin
is an estimate, block by block; where it does not, a margin of five bounds all but the worst cold starts, and
the ticks it covers say nothing about how the version will behave when warm.
"""

from __future__ import annotations

from domain.calibration import UNLEARNT_MARGIN, WARMUP_BLOCK_S, Law

LONGEST_WINDOW_S = 40.0
"""Seconds after a weight change beyond which no margin applies, however long a policy waits."""
WINDOW_PER_WARMUP = 10.0
"""Short warm-ups, as in tests and demonstrations, shorten the window: to ten times themselves."""
_SLACK_S = 0.05
"""A tick that starts this much before a block ends counts as the next block's."""


def margin_window(warmup_s: float) -> float:
    """Seconds after a weight change during which a warm-up margin applies, for a policy's warm-up.

    >>> margin_window(30.0), margin_window(2.0), margin_window(0.0)
    (40.0, 20.0, 0.0)
    """
    return min(LONGEST_WINDOW_S, WINDOW_PER_WARMUP * warmup_s)


def block_at(seconds_since_weight_change: float) -> int:
    """The block of the warm-up in which a tick lies that starts so long after its weight's first tick."""
    return max(0, int((seconds_since_weight_change + _SLACK_S) // WARMUP_BLOCK_S))


def margin_at(law: Law, step: int, seconds_since_weight_change: float, window_s: float) -> tuple[float, bool]:
    """The margin of a tick of step ``step`` (0-based): ``(rho, is_upper_bound)``.

    Seconds count from the start of the first tick at the step's weight to the start of this one. A learnt
    margin is an estimate of the healthy ratio, ``(rho, False)``; one that is not is but a bound on it, from
    which nothing may be learnt. After ``window_s`` it is ``(1.0, False)``.

    >>> margin_at(Law(), 0, 35.0, 40.0), margin_at(Law(), 0, 40.0, 40.0)
    ((5.0, True), (1.0, False))
    >>> cold = Law(warmup_margin=((4.0, 2.0), (1.5,)), has_learnt_warmup=True)
    >>> [margin_at(cold, step, at, 40.0)[0] for step, at in ((0, 5.0), (0, 10.0), (0, 35.0), (3, 5.0))]
    [4.0, 2.0, 2.0, 1.5]
    """
    if seconds_since_weight_change + _SLACK_S >= window_s:
        return 1.0, False
    if not law.has_learnt_warmup:
        return UNLEARNT_MARGIN, True
    blocks = law.warmup_margin[0 if step <= 0 else 1]
    return blocks[min(block_at(seconds_since_weight_change), len(blocks) - 1)], False
