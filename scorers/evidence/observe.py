"""One tick of everything about a gate that is not the canary against stable: marks, limits, bounds, claim."""

from __future__ import annotations

from math import exp, log

from scorers.evidence.bounds import ratio_bounds, weigh_ratios
from scorers.evidence.claims import choose_claim, claimed_limit
from scorers.evidence.compiled import compiled
from scorers.evidence.layout import (
    BAD_ALL,
    BAD_WARM,
    CANARY_BAD,
    CLAIM,
    DAMAGED,
    HOPE,
    LAST_END,
    N_ALL,
    N_WARM,
    SECONDS,
    SPENT,
    STABLE_BAD,
    STABLE_N,
    STABLE_STEP_BAD,
    STABLE_STEP_N,
    STEP,
    STEP_TICKS,
    TICKS,
    TRAFFIC_N,
    TRAFFIC_S,
    WAS_MARGIN,
)
from scorers.evidence.limits import breaks_limit, keeps_limit, log_breach
from scorers.evidence.prior import start_weight
from scorers.evidence.types import Floats

# What is given of a tick, by column.
START = 0
END = 1
STEP_INDEX = 2
STEPS = 3
HORIZON = 4
IS_SETTLED = 5
"""The whole tick lies at its step's weight."""
IS_WARM = 6
"""It lies after the step's warm-up."""
IN_MARGIN = 7
"""It lies in the warm-up margin of its step."""
HAS_LEARNT = 8
"""That margin was learnt."""
IS_DAMAGED = 9
CANARY_N = 10
BAD = 11
"""Events that break the limit for certain."""
SUSPECT = 12
"""Events that may break it."""
BASE_N = 13
BASE_BAD = 14
LIMIT = 15
IS_COUNT = 16
MOST_CLAIM = 17
TIME_LEFT = 18
"""Seconds from the end of the warm-up to the step's minimum time."""
SHARE = 19
"""The canary's share of the traffic by the step's weight."""
EXPECTED = 20
"""Rate of events that history expects of a healthy canary; -1 without history."""
BETA = 21
DISPERSION = 22
"""Of events against the limit."""
SPLIT_DISPERSION = 23
"""Of the split of this tick's events between the arms."""
MADE_UP = 24
"""Earlier ticks that brought nothing and that this one covers as well."""
GIVEN = 25

# What is said of it, by column.
LIVE = 0
"""1 when the tick counts as evidence."""
WEIGHT = 1
LOG_SLO = 2
LOG_PASS = 3
RATIO_LOW = 4
RATIO_HIGH = 5
OVERLAPS = 6
"""1 when the tick begins before an earlier one ended: it is refused."""
SAID = 7


@compiled
def _note_traffic(row: Floats, given: Floats) -> None:
    row[TRAFFIC_N] += given[CANARY_N] + given[BASE_N]
    row[TRAFFIC_S] += given[END] - given[START]
    row[STABLE_BAD] += given[BASE_BAD]
    row[STABLE_N] += given[BASE_N]


@compiled
def _open_step(row: Floats, at_ratios: int, ratios: int, step: float) -> None:
    """A new weight: what passing and the bounds are about begins afresh; evidence against the canary goes
    on."""
    row[STEP] = step
    for mark in (
        STEP_TICKS,
        DAMAGED,
        SECONDS,
        BAD_ALL,
        N_ALL,
        BAD_WARM,
        N_WARM,
        CLAIM,
        CANARY_BAD,
        STABLE_STEP_BAD,
        STABLE_STEP_N,
    ):
        row[mark] = 0.0
    for k in range(ratios):
        row[at_ratios + k] = 0.0


@compiled
def _make_claim(row: Floats, given: Floats) -> None:
    """The step's claim and how far below it a healthy canary should stay, from what was known before this
    tick's events."""
    is_count = given[IS_COUNT] > 0.0
    expected = given[EXPECTED]
    if expected < 0.0:
        expected = (row[STABLE_BAD] + 0.5) / (row[STABLE_N] + 1.0)
    if row[SECONDS] > 0.0:
        per_second = row[N_ALL] / row[SECONDS]
    elif row[TRAFFIC_S] > 0.0:
        per_second = row[TRAFFIC_N] / row[TRAFFIC_S] * given[SHARE]
    else:
        per_second = 0.0
    lone_per_second = per_second / given[DISPERSION]
    claim = choose_claim(
        given[LIMIT], is_count, expected, lone_per_second, given[TIME_LEFT], given[MOST_CLAIM], given[BETA]
    )
    row[CLAIM] = claim
    row[HOPE] = min(1.0, max(1e-6, expected / claimed_limit(given[LIMIT], claim, is_count)))


@compiled
def _log_pass(row: Floats, given: Floats) -> float:
    """Evidence of the step that the claim holds: since its weight, and since its warm-up, half and half."""
    is_count = given[IS_COUNT] > 0.0
    limit = claimed_limit(given[LIMIT], row[CLAIM], is_count)
    one = keeps_limit(row[BAD_ALL], row[N_ALL], limit, is_count, given[DISPERSION], row[HOPE])
    other = keeps_limit(row[BAD_WARM], row[N_WARM], limit, is_count, given[DISPERSION], row[HOPE])
    high = max(one, other)
    return high + log(0.5 * (1.0 + exp(min(one, other) - high)))


@compiled
def observe(row: Floats, given: Floats, said: Floats, limit_at: int, ratios_at: int, ratios: int) -> None:
    """Take one tick of one gate; ``row`` is what it remembers, changed in place."""
    for column in range(SAID):
        said[column] = 0.0
    said[RATIO_LOW] = said[RATIO_HIGH] = float("nan")
    is_count = given[IS_COUNT] > 0.0
    if given[END] > given[START]:
        if given[START] < row[LAST_END] - 1e-6:
            said[OVERLAPS] = 1.0
            given[IS_DAMAGED] = 1.0
        row[LAST_END] = max(row[LAST_END], given[END])
    if given[IS_SETTLED] > 0.0 and row[STEP] != given[STEP_INDEX]:
        _open_step(row, ratios_at, ratios, given[STEP_INDEX])
        opens = True
    else:
        opens = False
    if given[IS_SETTLED] > 0.0:
        row[STEP_TICKS] += 1.0
        row[DAMAGED] = max(0.0, row[DAMAGED] - given[MADE_UP]) + given[IS_DAMAGED]
    if said[OVERLAPS] == 0.0 and given[END] > given[START]:
        if given[IS_SETTLED] > 0.0 and given[CANARY_N] > 0.0:
            _count(row, given, said, limit_at, ratios_at, is_count, opens)
        _note_traffic(row, given)
    said[LOG_SLO] = log_breach(row, limit_at, row[SPENT])
    if row[CLAIM] > 0.0:
        said[LOG_PASS] = _log_pass(row, given)
    said[RATIO_LOW], said[RATIO_HIGH] = ratio_bounds(row, ratios_at)


@compiled
def _count(
    row: Floats, given: Floats, said: Floats, limit_at: int, ratios_at: int, is_count: bool, opens: bool
) -> None:
    """A tick that is evidence."""
    said[LIVE] = 1.0
    row[TICKS] += 1.0
    in_margin = given[IN_MARGIN] > 0.0
    weight = start_weight(
        int(row[TICKS]),
        int(given[STEP_INDEX]),
        int(given[STEPS]),
        int(given[HORIZON]),
        opens,
        row[WAS_MARGIN] > 0.0 and not in_margin,
        given[HAS_LEARNT] > 0.0,
    )
    weight = min(weight, 1.0 - row[SPENT])
    row[WAS_MARGIN] = given[IN_MARGIN]
    row[SPENT] += weight
    said[WEIGHT] = weight
    breaks_limit(
        row,
        limit_at,
        given[BAD],
        given[CANARY_N],
        given[LIMIT],
        is_count,
        given[DISPERSION],
        weight,
        row[SPENT],
    )
    weigh_ratios(
        row, ratios_at, given[BAD], given[CANARY_N], given[BASE_BAD], given[BASE_N], given[SPLIT_DISPERSION]
    )
    if given[IS_WARM] > 0.0 and row[CLAIM] == 0.0:
        _make_claim(row, given)
    row[SECONDS] += given[END] - given[START]
    row[BAD_ALL] += given[SUSPECT]
    row[N_ALL] += given[CANARY_N]
    if given[IS_WARM] > 0.0:
        row[BAD_WARM] += given[SUSPECT]
        row[N_WARM] += given[CANARY_N]
    row[CANARY_BAD] += given[BAD]
    row[STABLE_STEP_BAD] += given[BASE_BAD]
    row[STABLE_STEP_N] += given[BASE_N]


@compiled
def observe_all(
    memory: Floats, given: Floats, said: Floats, limit_at: int, ratios_at: int, ratios: int
) -> None:
    """:func:`observe` for many gates, a row each."""
    for i in range(memory.shape[0]):
        observe(memory[i], given[i], said[i], limit_at, ratios_at, ratios)
