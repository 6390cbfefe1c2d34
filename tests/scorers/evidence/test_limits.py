"""The canary against its limit: equal to its naive twin, and e-values by exact enumeration."""

from __future__ import annotations

from math import comb, exp, isfinite, log

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scorers.evidence.effects import OVER_LIMIT, UNDER_LIMIT
from scorers.evidence.kernel import CEILING
from scorers.evidence.limits import OVER, breaks_limit, keeps_limit
from tests.reference import naive_evidence as naive

EXACT = 1e-9
DEEP = -150.0

shares = st.sampled_from([0.0001, 0.01, 0.05, 0.5, 0.9, 0.99])
hopes = st.sampled_from([1e-6, 0.003, 0.2, 0.61, 1.0])
dispersions = st.sampled_from([1.0, 1.0, 1.7, 12.0])


def breach(
    ticks: list[tuple[float, float, float]], limit: float, phi: float, *, is_count: bool
) -> list[float]:
    """log E that the limit is broken, after every tick of ``(bad, n, weight)``."""
    row, spent, out = np.zeros(OVER), 0.0, []
    for bad, n, weight in ticks:
        spent += weight
        out.append(float(breaks_limit(row, 0, bad, n, limit, is_count, phi, weight, spent)))
    return out


@st.composite
def drawn_ticks(draw: st.DrawFn, limit: float) -> list[tuple[float, float, float]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rate = min(1.0, limit * draw(st.sampled_from([0.0, 0.5, 1.0, 1.3, 4.0])))
    left, ticks = 1.0, []
    for _ in range(draw(st.integers(1, 12))):
        n = int(rng.integers(0, 1000) * (rng.random() > 0.2))
        weight = float(left * rng.choice([0.0, 0.15, 0.7, 1.0]))
        left -= weight
        ticks.append((float(rng.binomial(n, rate)), float(n), weight))
    return ticks


@given(shares, dispersions, st.booleans(), st.data())
@settings(max_examples=60, deadline=None)
def test_evidence_of_a_breach_equals_its_naive_twin(
    limit: float, phi: float, is_count: bool, data: st.DataObject
) -> None:
    ticks = data.draw(drawn_ticks(limit))
    wanted = naive.breach(ticks, limit, phi, is_count=is_count)
    assume(min(wanted) > DEEP and max(wanted) < naive.CONVINCED - 1)
    assert breach(ticks, limit, phi, is_count=is_count) == pytest.approx(wanted, abs=EXACT)


@given(shares, dispersions, st.booleans(), st.integers(0, 10**6), st.floats(0.0, 1.0), hopes)
@settings(deadline=None)
def test_evidence_of_a_kept_limit_equals_its_naive_twin(
    limit: float, phi: float, is_count: bool, n: int, part: float, hope: float
) -> None:
    bad = float(round(n * part))
    found = keeps_limit(bad, float(n), limit, is_count, phi, hope)
    wanted = naive.kept(bad, float(n), limit, phi, is_count=is_count, hope=hope)
    if wanted < -600:
        assert found < -600 + 1e-3
    else:
        assert found == pytest.approx(wanted, abs=EXACT, rel=1e-12)


@pytest.mark.parametrize("limit", [0.001, 0.05, 0.5, 0.95])
@pytest.mark.parametrize("n", [1, 7, 60])
@pytest.mark.parametrize("hope", [1e-6, 0.3, 1.0])
def test_at_its_limit_a_canary_gains_nothing_on_average_either_way(limit: float, n: int, hope: float) -> None:
    """Over every number of bad events, weighted by its chance; better or worse canaries gain less."""
    for rate in (limit, 0.8 * limit, min(1.0, 1.05 * limit)):
        chances = [comb(n, bad) * rate**bad * (1 - rate) ** (n - bad) for bad in range(n + 1)]
        breaks = [
            exp(breach([(float(bad), float(n), 1.0)], limit, 1.0, is_count=False)[0]) for bad in range(n + 1)
        ]
        keeps = [exp(keeps_limit(float(bad), float(n), limit, False, 1.0, hope)) for bad in range(n + 1)]
        breach_mean, kept_mean = (
            sum(chance * value for chance, value in zip(chances, values, strict=True))
            for values in (breaks, keeps)
        )
        if rate == limit:
            # The most bad outcomes are worth more than the ceiling, and count as the ceiling.
            assert 0.999 < breach_mean <= 1 + 1e-9
            assert kept_mean == pytest.approx(1.0, rel=1e-9)
        elif rate < limit:
            assert breach_mean < 1.0 < kept_mean
        else:
            assert kept_mean < 1.0 < breach_mean


@pytest.mark.parametrize("phi", [1.3, 4.0])
def test_dispersion_only_makes_it_more_careful_on_average(phi: float) -> None:
    n, limit = 200, 0.02
    chances = [comb(n, bad) * limit**bad * (1 - limit) ** (n - bad) for bad in range(n + 1)]
    for of in (
        lambda bad: breach([(float(bad), float(n), 1.0)], limit, phi, is_count=False)[0],
        lambda bad: keeps_limit(float(bad), float(n), limit, False, phi, 0.4),
    ):
        assert sum(chance * exp(of(bad)) for bad, chance in enumerate(chances)) <= 1 + 1e-9


def test_counts_are_poisson_and_gain_nothing_at_their_limit() -> None:
    limit, n = 0.3, 10.0
    mean = limit * n
    chances = [exp(-mean)]
    for events in range(1, 120):
        chances.append(chances[-1] * mean / events)
    breaks = sum(
        chance * exp(breach([(float(bad), n, 1.0)], limit, 1.0, is_count=True)[0])
        for bad, chance in enumerate(chances)
    )
    keeps = sum(
        chance * exp(keeps_limit(float(bad), n, limit, True, 1.0, 0.4)) for bad, chance in enumerate(chances)
    )
    # A hundredfold rate is worth something only at counts that the sum leaves out.
    assert 1 - 1 / OVER * 1.01 * 3 <= breaks <= 1 + 1e-9
    assert keeps == pytest.approx(1.0, rel=1e-9)


@given(shares, dispersions, hopes, st.data())
@settings(max_examples=60, deadline=None)
def test_a_bad_event_more_speaks_for_a_breach_and_against_a_kept_limit(
    limit: float, phi: float, hope: float, data: st.DataObject
) -> None:
    ticks = [each for each in data.draw(drawn_ticks(limit)) if each[0] < each[1]]
    assume(ticks)
    at = data.draw(st.integers(0, len(ticks) - 1))
    bad, n, weight = ticks[at]
    worse = [*ticks[:at], (bad + 1, n, weight), *ticks[at + 1 :]]
    before, after = (breach(each, limit, phi, is_count=False) for each in (ticks, worse))
    assume(max(before) < naive.CONVINCED - 1)
    assert all(one <= other + EXACT for one, other in zip(before, after, strict=True))
    assert (
        keeps_limit(bad + 1, n, limit, False, phi, hope)
        <= keeps_limit(bad, n, limit, False, phi, hope) + EXACT
    )


def test_no_counts_make_it_infinite_or_undefined() -> None:
    for limit in (1e-6, 0.01, 0.5, 0.999):
        for n in (0.0, 1.0, 1e9):
            for bad in (0.0, n):
                for is_count in (False, True):
                    found = breach([(bad, n, 0.5)] * 5, limit, 1.0, is_count=is_count)
                    assert all(map(isfinite, found))
                    assert max(found) <= log(CEILING) + EXACT


def test_a_hopeless_canary_has_no_proof_and_a_finite_number() -> None:
    """5 % of 200,000 requests where 1 % is the limit: a few minutes of a broken canary at 1,000 a second."""
    for limit in (1e-6, 0.01, 0.5, 0.999):
        for bad, n in ((10_000.0, 200_000.0), (1e9, 1e9), (0.0, 1e9)):
            for is_count in (False, True):
                assert isfinite(keeps_limit(bad, n, limit, is_count, 1.0, 0.5))


def test_without_exposure_nothing_is_said() -> None:
    assert breach([(0.0, 0.0, 0.7)], 0.01, 1.0, is_count=False) == [0.0]
    assert keeps_limit(0.0, 0.0, 0.01, False, 1.0, 0.5) == pytest.approx(0.0)


def test_the_grids_are_the_documented_ones() -> None:
    assert tuple(OVER_LIMIT) == naive.OVER
    assert tuple(UNDER_LIMIT) == naive.UNDER
