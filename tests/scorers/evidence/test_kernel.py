"""The canary against stable: equal to its naive twin, and an e-process by exact enumeration."""

from __future__ import annotations

from math import comb, exp, isfinite, log

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from domain.calibration import DISPERSION_BINS
from scorers.evidence.effects import RATIOS, REACH, UNDER_LIMIT, WORSE
from scorers.evidence.kernel import CEILING, EFFECTS, WIDTH, advance, begin, dispersion_of, tick, trajectories
from scorers.evidence.null import Null, null_with
from scorers.evidence.types import Floats
from tests.reference import naive_evidence as naive
from tests.reference.naive_evidence import Tick
from tests.reference.naive_learning import dispersion as naive_dispersion

EXACT = 1e-9
"""Nats."""
DEEP = -150.0
"""Evidence below this is not kept to nine digits: beliefs smaller than 1e-200 are zero."""
PLAIN = null_with(0.0, 1.0)

laws = st.sampled_from(
    [(0.0, 1.0), (0.08, 1.0), (0.25, 1.0), (0.2, 0.85), (0.37, 0.95), (0.6, 0.85), (0.9, 0.95), (0.9, 0.0)]
)


@st.composite
def drawn_ticks(draw: st.DrawFn) -> list[Tick]:
    """Up to 30 ticks at any traffic, margin and dispersion; some without an arm, some without events."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    size = draw(st.integers(1, 30))
    rate, ratio = (
        draw(st.sampled_from([0.0005, 0.005, 0.05, 0.5])),
        draw(st.sampled_from([0.3, 1.0, 2.0, 20.0])),
    )
    traffic = draw(st.sampled_from([20, 500, 20_000]))
    left, ticks = 1.0, []
    for position in range(size):
        n_c = float(rng.integers(0, traffic) * (rng.random() > 0.1))
        n_b = float(rng.integers(0, 9 * traffic) * (rng.random() > 0.1))
        weight = left * rng.choice([0.0, 0.7, 0.01]) if position else left * rng.choice([0.15, 0.7, 1.0])
        left -= weight
        ticks.append(
            Tick(
                s_c=float(rng.binomial(int(n_c), min(1.0, rate * ratio))),
                n_c=n_c,
                s_b=float(rng.binomial(int(n_b), rate)),
                n_b=n_b,
                rho=float(rng.choice([1.0, 1.0, 1.6, 5.0])),
                phi=float(rng.choice([1.0, 1.0, 1.7, 12.0])),
                weight=float(weight),
                is_bound=bool(rng.random() < 0.15),
            )
        )
    return ticks


class Filter:
    """One filter, told tick by tick."""

    def __init__(self, null: Null) -> None:
        self.null, self.spent, self.told = null, 0.0, 0
        self.row: Floats = np.zeros(null.points * WIDTH)
        begin(self.row, 0, null.start)

    def take(self, met: Tick) -> tuple[float, float]:
        self.told += 1
        self.spent += met.weight
        log_e, tilt = tick(
            self.row,
            0,
            self.null.half,
            self.null.first,
            self.null.steps,
            self.null.wanders and self.told > 1,
            met.s_c,
            met.n_c,
            met.s_b,
            met.n_b,
            met.rho,
            met.phi,
            met.weight,
            self.spent,
            met.is_bound,
            np.empty(self.null.points * WIDTH),
            np.empty(self.null.points + int(WORSE[-1])),
        )
        return float(log_e), float(tilt)


def is_overwhelming(met: Tick, law: tuple[float, float]) -> bool:
    """Whether a tick may say more than 200 nats about any two log ratios."""
    most = naive.lattice(law[0])[-1] + naive.SPACING * max(naive.WORSE)
    logs = [naive.log_f(met, x) for x in np.arange(-most, most, naive.SPACING)] if met.compares else [0.0]
    return max(logs) - min(logs) > 200


@given(laws, drawn_ticks())
@settings(max_examples=60, deadline=None)
def test_the_filter_equals_dense_matrices_in_log_space(law: tuple[float, float], ticks: list[Tick]) -> None:
    plain = Filter(null_with(*law))
    for met, (log_e, tilt) in zip(ticks, naive.filtered(*law, ticks), strict=True):
        found = plain.take(met)
        if log_e < DEEP:
            assert found[0] < DEEP + 1
            break
        assert found[0] == pytest.approx(log_e, abs=EXACT)
        if any(is_overwhelming(each, law) for each in ticks):
            break  # beyond the ceiling, what the alternatives believe in is not kept
        assert found[1] == pytest.approx(tilt, abs=1e-7)


@given(drawn_ticks())
@settings(max_examples=60, deadline=None)
def test_one_point_and_no_dispersion_is_the_plain_relative_kernel(ticks: list[Tick]) -> None:
    plain = [Tick(each.s_c, each.n_c, each.s_b, each.n_b, each.rho, 1.0, each.weight) for each in ticks]
    learned = Filter(PLAIN)
    for met, log_e in zip(plain, naive.plain_relative(plain), strict=True):
        found = learned.take(met)[0]
        if not DEEP < log_e < naive.CONVINCED:
            break
        assert found == pytest.approx(log_e, abs=EXACT)


@given(laws, drawn_ticks())
@settings(max_examples=30, deadline=None)
def test_whole_rollouts_at_once_equal_tick_by_tick(law: tuple[float, float], ticks: list[Tick]) -> None:
    null, bins = null_with(*law), np.linspace(1.0, 9.0, len(DISPERSION_BINS) + 1)
    columns = {
        name: np.array([[getattr(each, name) for each in ticks]]) for name in ("s_c", "n_c", "s_b", "n_b")
    }
    log_e, tilt = np.zeros((1, len(ticks))), np.zeros((1, len(ticks)))
    trajectories(
        null.start,
        null.first,
        null.steps,
        null.wanders,
        *columns.values(),
        np.array([each.rho for each in ticks]),
        bins[None, :],
        np.array([each.weight for each in ticks]),
        np.array([each.is_bound for each in ticks]),
        log_e,
        tilt,
    )
    single = Filter(null)
    for position, met in enumerate(ticks):
        phi = dispersion_of(met.s_c + met.s_b, bins)
        found = single.take(Tick(met.s_c, met.n_c, met.s_b, met.n_b, met.rho, phi, met.weight, met.is_bound))
        assert found == (log_e[0, position], tilt[0, position])


@given(st.integers(0, 2000), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_dispersion_is_its_bins_but_never_more_than_the_events(events: int, seed: int) -> None:
    bins = np.random.default_rng(seed).uniform(0.5, 40.0, len(DISPERSION_BINS) + 1)
    assert dispersion_of(float(events), bins) == naive_dispersion(events, list(bins))


# It is an e-process: enumerated, not simulated.


def increment(s_c: int, n_c: int, s_b: int, n_b: int, rho: float, shift: int) -> float:
    """What the kernel multiplies one alternative by, read off its own beliefs."""
    told = Filter(PLAIN)
    told.row[1 + shift] = 1.0
    told.take(Tick(s_c, n_c, s_b, n_b, rho))
    return float(told.row[1 + shift])


def chances(n: int, p: float) -> list[float]:
    return [comb(n, s) * p**s * (1 - p) ** (n - s) for s in range(n + 1)]


@pytest.mark.parametrize("rho", [0.5, 1.0, 1.7, 5.0])
@pytest.mark.parametrize(("n_c", "n_b"), [(1, 9), (6, 6), (12, 3)])
@pytest.mark.parametrize("p_b", [0.001, 0.05, 0.19])
def test_no_alternative_gains_on_average_while_the_ratio_keeps_the_margin(
    n_c: int, n_b: int, rho: float, p_b: float
) -> None:
    """Every outcome of both arms, weighted by its chance; the closed form says the same."""
    p_c = min(1.0, rho * p_b)
    for shift, worse in enumerate(WORSE):
        mean = sum(
            chance_c * chance_b * increment(s_c, n_c, s_b, n_b, rho, shift)
            for s_c, chance_c in enumerate(chances(n_c, p_c))
            for s_b, chance_b in enumerate(chances(n_b, p_b))
        )
        r = float(RATIOS[REACH + worse])
        m = (rho * n_c + n_b) / (rho * n_c * r + n_b)
        closed = (1 + p_c * (r * m - 1)) ** n_c * (1 + p_b * (m - 1)) ** n_b
        assert mean == pytest.approx(closed, rel=1e-9)
        assert mean <= 1 + 1e-9


def test_the_closed_form_never_exceeds_one_on_the_grids() -> None:
    rng = np.random.default_rng(7)
    size = 100_000
    n_c, n_b = (np.floor(10 ** rng.uniform(0, 6, size)) for _ in range(2))
    rho = 10 ** rng.uniform(-1, 1, size)
    p = 10 ** rng.uniform(-6, 0, size) / np.maximum(1.0, rho)
    better = np.concatenate([1 / RATIOS[REACH + WORSE], UNDER_LIMIT])
    for r in np.concatenate([RATIOS[REACH + WORSE], better]):
        m = (rho * n_c + n_b) / (rho * n_c * r + n_b)
        log_mean = n_c * np.log1p(rho * p * (r * m - 1)) + n_b * np.log1p(p * (m - 1))
        assert log_mean.max() <= 1e-9


@given(
    laws,
    st.integers(1, 12),
    st.integers(1, 50),
    st.integers(1, 50),
    st.sampled_from([1.0, 0.4, 3.0]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_evidence_does_not_grow_on_average_while_the_canary_wanders_as_was_learnt(
    law: tuple[float, float], events: int, n_c: int, n_b: int, rho: float, seed: int
) -> None:
    """Given any past and the events of both arms, over all splits that the null foresees."""
    rng = np.random.default_rng(seed)
    null = null_with(*law)
    past = [
        Tick(float(rng.integers(0, 4)), 30.0, float(rng.integers(0, 4)), 60.0, rho=rho, weight=0.2)
        for _ in range(rng.integers(0, 4))
    ]
    before = 1.0
    told = Filter(null)
    for met in past:
        before = exp(told.take(met)[0])
    belief = told.row.reshape(-1, WIDTH)[:, 0]
    belief = belief @ naive.transitions(*law) if past and null.wanders else belief
    shares = rho * n_c * np.exp(naive.lattice(law[0]))
    shares = shares / (shares + n_b)
    mean = 0.0
    for s_c in range(events + 1):
        chance = sum(
            held * comb(events, s_c) * share**s_c * (1 - share) ** (events - s_c)
            for held, share in zip(belief, shares, strict=True)
        )
        next_one = Filter(null)
        next_one.row, next_one.spent, next_one.told = told.row.copy(), told.spent, told.told
        met = Tick(float(s_c), n_c, float(events - s_c), n_b, rho=rho, weight=0.2)
        mean += chance * exp(next_one.take(met)[0])
    assert mean == pytest.approx(before, rel=1e-9)


# Laws of the evidence.


def path(ticks: list[Tick]) -> list[float]:
    """log E of the plain kernel after every tick."""
    told = Filter(PLAIN)
    return [told.take(met)[0] for met in ticks]


def after(ticks: list[Tick]) -> float:
    return path(ticks)[-1]


@given(drawn_ticks(), st.data())
@settings(max_examples=150, deadline=None)
def test_an_error_more_on_the_canary_never_lowers_the_evidence_and_one_on_stable_never_raises_it(
    ticks: list[Tick], data: st.DataObject
) -> None:
    ticks = [Tick(each.s_c, each.n_c, each.s_b, each.n_b, each.rho, 1.0, each.weight) for each in ticks]
    at = data.draw(st.integers(0, len(ticks) - 1))
    one = ticks[at]
    assume(max(path(ticks)) < naive.CONVINCED - 1)  # beyond it nothing is counted any more
    more_canary = Tick(one.s_c + 1, one.n_c, one.s_b, one.n_b, one.rho, 1.0, one.weight)
    more_stable = Tick(one.s_c, one.n_c, one.s_b + 1, one.n_b, one.rho, 1.0, one.weight)
    now = after(ticks)
    assert after([*ticks[:at], more_canary, *ticks[at + 1 :]]) >= now - EXACT
    assert after([*ticks[:at], more_stable, *ticks[at + 1 :]]) <= now + EXACT


def begun_at_once(ticks: list[Tick]) -> list[Tick]:
    """The prior's whole weight on the first tick, whichever that is."""
    return [
        Tick(each.s_c, each.n_c, each.s_b, each.n_b, each.rho, weight=float(not position))
        for position, each in enumerate(ticks)
    ]


@given(drawn_ticks(), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_order_of_ticks_does_not_matter_to_a_regression_from_the_start(
    ticks: list[Tick], seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(ticks))
    one = path(begun_at_once(ticks))
    other = path(begun_at_once([ticks[position] for position in order]))
    assume(min(one + other) > DEEP and max(one + other) < naive.CONVINCED - 1)
    assert other[-1] == pytest.approx(one[-1], abs=EXACT)


@given(
    st.integers(1, 200),
    st.integers(1, 200),
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8),
)
@settings(deadline=None)
def test_merging_ticks_of_one_exposure_ratio_changes_nothing(
    n_c: int, n_b: int, parts: list[tuple[int, int, int]]
) -> None:
    ticks = [Tick(s_c, n_c * times, s_b, n_b * times) for times, s_c, s_b in parts]
    merged = Tick(
        sum(each.s_c for each in ticks),
        sum(each.n_c for each in ticks),
        sum(each.s_b for each in ticks),
        sum(each.n_b for each in ticks),
    )
    assert after(begun_at_once([merged])) == pytest.approx(after(begun_at_once(ticks)), abs=EXACT)


@pytest.mark.parametrize("law", [(0.0, 1.0), (0.25, 1.0), (0.37, 0.95)])
@pytest.mark.parametrize(
    "empty", [Tick(0, 500, 0, 4500), Tick(3, 0, 9, 4500), Tick(3, 500, 9, 0), Tick(0, 0, 0, 0)]
)
def test_a_tick_that_compares_nothing_changes_no_evidence(law: tuple[float, float], empty: Tick) -> None:
    told = Filter(null_with(*law))
    before = told.take(Tick(30, 500, 50, 4500, weight=0.7))[0]
    changed = Tick(empty.s_c, empty.n_c, empty.s_b, empty.n_b, weight=0.1)
    assert told.take(changed)[0] == pytest.approx(before, abs=EXACT)


EXTREMES = (0.0, 1.0, 1e9)


@pytest.mark.parametrize("law", [(0.0, 1.0), (0.9, 1.0), (0.6, 0.85)])
@pytest.mark.parametrize("rho", [1.0, 5.0])
@pytest.mark.parametrize("is_bound", [False, True])
def test_no_counts_make_it_infinite_or_undefined(
    law: tuple[float, float], rho: float, is_bound: bool
) -> None:
    for s_c in EXTREMES:
        for s_b in EXTREMES:
            told = Filter(null_with(*law))
            for n_c, n_b in ((1e9, 1e9), (0.0, 1e9), (1e9, 0.0), (1e9, 1.0), (1.0, 1e9)):
                found = told.take(
                    Tick(min(s_c, n_c), n_c, min(s_b, n_b), n_b, rho=rho, weight=0.2, is_bound=is_bound)
                )
                assert all(map(isfinite, found))
                assert np.isfinite(told.row).all()
                assert found[0] <= log(CEILING) + EXACT


def test_evidence_recovers_after_it_was_buried() -> None:
    """A regression after a long healthy time is found as fast as its own start prior allows."""
    told = Filter(PLAIN)
    for position in range(2000):
        told.take(Tick(5, 1000, 45, 9000, weight=0.7 if position == 0 else 1e-4))
    found = [told.take(Tick(50, 1000, 45, 9000, weight=1e-5))[0] for _ in range(3)]
    assert found[-1] > log(100.0)


def test_rows_judged_together_and_those_that_stand_still() -> None:
    null = null_with(0.37, 0.95)
    rng = np.random.default_rng(3)
    rows = np.stack([Filter(null).row for _ in range(40)])
    counts = np.column_stack([rng.poisson(5, 40), np.full(40, 500), rng.poisson(40, 40), np.full(40, 4500)])
    ones, live = np.ones(40), np.arange(40) % 4 != 0
    log_e, tilt = np.zeros(40), np.zeros(40)
    before = rows.copy()
    advance(
        rows, 0, null.half, null.first, null.steps, np.zeros(40, dtype=np.bool_), counts.astype(np.float64),
        ones, ones, 0.7 * ones, 0.7 * ones, np.zeros(40, dtype=np.bool_), live, log_e, tilt,
    )  # fmt: skip
    for i in range(40):
        single = Filter(null)
        if live[i]:
            assert single.take(Tick(*counts[i], weight=0.7)) == (log_e[i], tilt[i])
            assert (single.row == rows[i]).all()
        else:
            assert (rows[i] == before[i]).all()
            assert log_e[i] == pytest.approx(log(0.3))


def test_the_grid_is_the_documented_one() -> None:
    assert tuple(WORSE) == naive.WORSE
    assert len(naive.HELD_LIKELY) == EFFECTS
