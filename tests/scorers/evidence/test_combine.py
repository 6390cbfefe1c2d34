"""All gates together: one e-value, and who is to blame."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import exp, inf, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.evidence.combine import blamed, log_mean

nats = st.lists(st.floats(-600.0, 92.0), min_size=1, max_size=6)


@given(nats)
@settings(deadline=None)
def test_the_mean_lies_between_the_least_and_the_most_and_is_the_mean(log_es: list[float]) -> None:
    mean = log_mean(log_es)
    assert min(log_es) - 1e-9 <= mean <= max(log_es) + 1e-9
    exact = sum(Fraction(exp(each)) for each in log_es) / len(log_es)
    if exact > Fraction(1, 10**200):
        assert mean == pytest.approx(log(float(exact)), abs=1e-9)


@given(nats, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_gates_changes_nothing(log_es: list[float], drawn: object) -> None:
    order = list(range(len(log_es)))
    drawn.shuffle(order)  # type: ignore[attr-defined]  # random.Random
    shuffled = [log_es[each] for each in order]
    assert log_mean(shuffled) == pytest.approx(log_mean(log_es), abs=1e-12)
    if len(set(log_es)) == len(log_es):
        assert {order[each] for each in blamed(shuffled, 5.0)} == set(blamed(log_es, 5.0))


def closed(log_es: list[float], gate: int, threshold: float) -> bool:
    """Whether every company of gates that the gate could be in convicts together: by the definition."""
    others = [each for other, each in enumerate(log_es) if other != gate]
    return all(
        log_mean([log_es[gate], *company]) >= threshold
        for size in range(len(others) + 1)
        for company in combinations(others, size)
    )


@given(nats, st.sampled_from([0.5, 3.0, 5.0]))
@settings(deadline=None)
def test_a_gate_is_blamed_when_it_convicts_in_any_company(log_es: list[float], threshold: float) -> None:
    certain = [gate for gate in range(len(log_es)) if closed(log_es, gate, threshold)]
    loudest = [max(range(len(log_es)), key=lambda gate: log_es[gate])]
    assert blamed(log_es, threshold) == (certain or loudest)


def test_the_loudest_is_blamed_when_only_all_together_convict() -> None:
    log_es = [log(500.0), log(450.0), -inf]
    assert log_mean(log_es) >= log(250.0)
    assert blamed(log_es, log(250.0)) == [0]


def test_one_gate_stands_for_itself() -> None:
    assert log_mean([3.25]) == 3.25
    assert blamed([7.0], 5.0) == [0]


def test_innocent_gates_are_blamed_as_rarely_as_rollouts_are_rolled_back() -> None:
    """Four dependent healthy gates, e-values at once as wild as they may be: the mean of each is one."""
    rng = np.random.default_rng(4)
    runs, alpha = 100_000, 0.01
    shared = rng.random(runs)
    gates = [np.where((shared + shift) % 1.0 < 1 / 500, 500.0, 1e-9) for shift in (0.0, 0.0, 0.3, 0.6)]
    together = np.mean(gates, axis=0) >= 1 / alpha
    assert 0.0 < together.mean() <= alpha
