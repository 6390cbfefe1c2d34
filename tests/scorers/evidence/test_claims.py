"""What a step has to prove: ladders of claims, and the smallest one that its traffic can prove in time."""

from __future__ import annotations

from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.evidence.claims import (
    LADDERS,
    PROVABLE,
    SLOW_REQUESTS,
    choose_claim,
    claimed_limit,
    divergence,
    ladder,
)
from scorers.evidence.limits import keeps_limit
from tests.scorers.evidence.rows import evident

CLAIMS = (1.0, 1.5, 2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("weights", "claims"),
    [
        ((10_000,), (1,)),
        ((5000, 10_000), (1, 1)),
        ((500, 2000, 10_000), (2, 1, 1)),
        ((500, 1000, 2500, 10_000), (3, 2, 1, 1)),
        ((500, 1000, 2500, 5000, 10_000), (3, 2, 1.5, 1, 1)),
        ((500, 1000, 2500, 5000, 7500, 10_000), (4, 3, 2, 1.5, 1, 1)),
        ((100, 200, 500, 1000, 2500, 5000, 7500, 10_000), (4, 4, 4, 3, 2, 1.5, 1, 1)),
    ],
)
def test_claims_tighten_and_the_last_step_before_all_traffic_proves_the_limit_itself(
    weights: tuple[int, ...], claims: tuple[float, ...]
) -> None:
    assert ladder(evident(weights_bp=weights)) == claims


def test_every_ladder_falls_to_one() -> None:
    for rungs in LADDERS:
        assert rungs[-1] == 1.0
        assert list(rungs) == sorted(rungs, reverse=True)


settings_of_a_step = st.fixed_dictionaries(
    {
        "limit": st.sampled_from([0.001, 0.01, 0.05, 0.3]),
        "is_count": st.booleans(),
        "rate": st.floats(0.0, 0.6),
        "per_second": st.floats(0.0, 1e4),
        "seconds": st.sampled_from([0.0, 30.0, 600.0]),
        "most": st.sampled_from(CLAIMS),
        "beta": st.sampled_from([0.01, 0.05, 0.5]),
    }
)


@given(settings_of_a_step)
@settings(deadline=None)
def test_a_claim_is_the_smallest_that_nine_of_ten_healthy_steps_prove_in_time(
    given_: dict[str, float],
) -> None:
    found = choose_claim(**given_)
    most, limit, is_count = given_["most"], given_["limit"], bool(given_["is_count"])
    assert found in CLAIMS
    assert found <= most
    fitting = []
    for claim in CLAIMS:
        ceiling = claimed_limit(limit, claim, is_count)
        if claim < most and given_["rate"] < PROVABLE * ceiling:
            needed = SLOW_REQUESTS * log(1 / given_["beta"]) / divergence(given_["rate"], ceiling, is_count)
            if needed <= given_["per_second"] * given_["seconds"]:
                fitting.append(claim)
    assert found == min([*fitting, most])


@given(settings_of_a_step, st.floats(1.0, 100.0))
@settings(deadline=None)
def test_more_traffic_never_asks_for_less(given_: dict[str, float], times: float) -> None:
    more = given_ | {"per_second": given_["per_second"] * times}
    assert choose_claim(**more) <= choose_claim(**given_)


@given(st.sampled_from([0.001, 0.05, 0.2]), st.floats(0.0, 0.9), st.booleans())
@settings(deadline=None)
def test_divergence_is_what_a_canary_at_that_rate_earns_per_request(
    limit: float, share_of_limit: float, is_count: bool
) -> None:
    """The best argument of the grid earns at most the divergence, and most of it near its own ratio."""
    rate = share_of_limit * limit
    nats = divergence(rate, limit, is_count)
    n = 1e6
    earned = keeps_limit(rate * n, n, limit, is_count, 1.0, 1.0) / n
    assert earned <= nats + 1e-9
    for r in (0.7, 0.5, 0.1):
        own = divergence(r * limit, limit, is_count)
        at = keeps_limit(r * limit * n, n, limit, is_count, 1.0, 1.0) / n
        assert at == pytest.approx(own, abs=log(16) / n + 1e-12)


def test_divergence_at_the_ends() -> None:
    assert divergence(0.0, 0.01, False) == pytest.approx(-log(0.99))
    assert divergence(0.01, 0.01, False) == pytest.approx(0.0)
    assert divergence(1.0, 0.5, False) == pytest.approx(log(2))
    assert divergence(0.0, 3.0, True) == pytest.approx(3.0)
    assert divergence(3.0, 3.0, True) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("limit", "claim", "is_count", "ceiling"),
    [
        (0.01, 3.0, False, 0.03),
        (0.2, 4.0, False, 0.5),
        (0.7, 1.0, False, 0.7),
        (0.7, 4.0, False, 0.7),
        (2.0, 4.0, True, 8.0),
    ],
)
def test_a_claimed_share_stays_below_one_half(
    limit: float, claim: float, is_count: bool, ceiling: float
) -> None:
    assert claimed_limit(limit, claim, is_count) == pytest.approx(ceiling)
