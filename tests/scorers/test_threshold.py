"""The threshold judge at its limits, and against its naive twin in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.policy import Gate
from domain.policy_text import parse_limit
from domain.rollout import GateState, WindowTick, context_of
from domain.signal import Shape
from domain.verdict import Score, Verdict
from scorers.gate_row import GateRow, Moment
from scorers.threshold import judge
from tests.reference.naive_judge import Seen, verdict_of
from tests.scorers.situations import ERRORS, LATENCY, spec

CONTEXT = context_of(spec())


def moment(start: float, end: float) -> Moment:
    return Moment(start, end, step=0, is_settled=True, step_began=0.0, warm_at=0.0)


def row(gate: Gate, newest: WindowTick | None, state: GateState | None = None, **more: object) -> GateRow:
    plain: dict[str, object] = {
        "index": 0,
        "gate": gate,
        "state": state or GateState(),
        "context": CONTEXT,
        "newest": newest,
        "problem": "no data: prom: 503",
        "quantile_ms": None,
        "since": 0.0,
        "moment": moment(newest.start, newest.end) if newest else moment(0.0, 5.0),
    }
    return GateRow(**(plain | more))  # type: ignore[arg-type]  # plain kwargs


def judged(
    gate: Gate,
    n: float,
    bad: float,
    suspect: float | None = None,
    worse: float | None = None,
    **stable: float,
) -> Score:
    newest = WindowTick(
        0.0,
        5.0,
        n,
        bad,
        bad if suspect is None else suspect,
        bad if worse is None else worse,
        stable.get("stable_n", 0.0),
        stable.get("stable_bad", 0.0),
    )
    return judge([[row(gate, newest)]])[0][0][1]


@pytest.mark.parametrize(
    ("n", "bad", "verdict"),
    [
        (99, 0, Verdict.INCONCLUSIVE),
        (99, 99, Verdict.INCONCLUSIVE),
        (100, 0, Verdict.PASS),
        (100, 1, Verdict.PASS),
        (100, 2, Verdict.INCONCLUSIVE),
        (100, 3, Verdict.FAIL),
        (300, 3, Verdict.PASS),
        (299, 3, Verdict.FAIL),
        (100, 4, Verdict.FAIL),
        (100, 5, Verdict.SEVERE),
        (0, 0, Verdict.INCONCLUSIVE),
    ],
)
def test_the_borders_of_a_ratio_gate(n: int, bad: int, verdict: Verdict) -> None:
    """SLO 1 %, severe 5 %, at least 100 samples and 3 bad events."""
    assert judged(ERRORS, n, bad).verdict is verdict


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.95, 0.99, 0.999])
def test_a_quantile_exactly_at_its_limit_keeps_it(quantile: float) -> None:
    gate = replace(LATENCY, quantile=quantile)
    slower = round(10_000 * (1 - quantile))
    assert judged(gate, 10_000, slower, slower, 0).verdict is Verdict.PASS
    assert judged(gate, 10_000, slower + 3, slower + 3, 0).verdict is Verdict.FAIL


@pytest.mark.parametrize("percent", [0.1, 0.29, 0.3, 0.5, 0.57, 0.7, 1.0, 1.1, 2.3])
def test_a_ratio_exactly_at_its_limit_keeps_it(percent: float) -> None:
    slo = parse_limit(f"<= {percent}%", shape=Shape.RATIO, sign="<")
    score = judged(replace(ERRORS, slo=slo, severe=0.5), 10_000, round(percent * 100))
    assert (score.verdict, score.point_holds) == (Verdict.PASS, True)


def test_a_limit_between_two_edges_neither_passes_nor_fails() -> None:
    score = judged(LATENCY, 1000, 10, 200, 0)
    assert score.verdict is Verdict.INCONCLUSIVE
    assert "no bucket edge" in score.reason
    assert not score.point_holds


def test_a_severe_latency_needs_the_share_beyond_the_severe_limit() -> None:
    assert judged(LATENCY, 1000, 500, 500, 49).verdict is Verdict.FAIL
    assert judged(LATENCY, 1000, 500, 500, 50).verdict is Verdict.SEVERE


def test_one_error_of_twenty_is_no_verdict() -> None:
    gate = replace(ERRORS, min_samples=20)
    assert judged(gate, 20, 1).verdict is Verdict.INCONCLUSIVE
    assert "1 of 3 bad events" in judged(gate, 20, 1).reason


@pytest.mark.parametrize(
    ("stable_n", "stable_bad", "shared"),
    [(1000, 20, True), (1000, 10, False), (99, 50, False), (100, 2, False), (0, 0, False)],
)
def test_a_failure_is_shared_when_stable_breaks_the_same_limit_as_surely(
    stable_n: float, stable_bad: float, shared: bool
) -> None:
    score = judged(ERRORS, 1000, 20, stable_n=stable_n, stable_bad=stable_bad)
    assert (score.verdict, score.shared) == (Verdict.FAIL, shared)
    assert not judged(ERRORS, 1000, 0, stable_n=stable_n, stable_bad=stable_bad).shared


def test_no_data_says_so_in_the_sources_words_and_the_window_lives_on() -> None:
    state = GateState(window=(WindowTick(0.0, 5.0, 500, 0, 0, 0, 0, 0),))
    after, score = judge([[row(ERRORS, None, state, moment=moment(5.0, 10.0))]])[0][0]
    assert (score.verdict, score.reason) == (Verdict.NO_DATA, "error_rate: no data: prom: 503")
    assert after.window == state.window


def test_too_few_samples_come_with_how_many_more_and_how_long() -> None:
    score = judged(ERRORS, 20, 0)
    assert (score.samples_needed, score.eta_s) == (80.0, 20.0)
    assert judged(ERRORS, 0, 0).eta_s is None
    assert judged(ERRORS, 100, 0).samples_needed == 0.0


def test_without_exposure_there_is_no_point() -> None:
    score = judged(ERRORS, 0, 0)
    assert (score.canary_point, score.stable_point, score.point_holds) == (None, None, False)
    assert "no traffic" in score.reason


counts = st.tuples(st.integers(0, 400), st.integers(0, 30), st.integers(0, 30)).map(
    lambda drawn: (drawn[0], min(drawn[1], drawn[0]), min(drawn[1] + drawn[2], drawn[0]))
)


@given(st.lists(counts, min_size=1, max_size=15), st.sampled_from([0.95, 0.9, 0.99]))
def test_verdicts_equal_those_of_the_naive_twin(ticks: list[tuple[int, int, int]], quantile: float) -> None:
    gate = replace(LATENCY, quantile=quantile, window_s=30.0)
    state, kept = GateState(), []
    for position, (n, bad, suspect) in enumerate(ticks):
        start, worse = position * 5, bad // 2
        newest = WindowTick(float(start), start + 5.0, n, bad, suspect, worse, 0, 0)
        state, score = judge([[row(gate, newest, state)]])[0][0]
        kept.append(Seen(start, start + 5, n, bad, suspect, worse))
        share = 1 - Fraction(str(quantile))
        naive = verdict_of(kept[-6:], share=share, severe_share=share, min_samples=100, min_events=3)
        assert score.verdict is naive
        assert score.canary_exposure == sum(each.n for each in kept[-6:])
