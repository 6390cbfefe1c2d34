"""What counts as evidence and what does not: the input contract, and what a gate remembers of a tick."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.calibration import Calibration
from domain.records import SignalInput
from domain.rollout import RolloutFold, SourceRef
from domain.signal import Arm, Channel, Freshness, Quality
from domain.verdict import Score
from scorers.assemble import Assembler
from scorers.evidence import layout as at
from scorers.evidence.dispersion import dispersions
from scorers.evidence.layout import SERIES_MARKS, SERIES_OF_HISTOGRAM, layout_of
from scorers.evidence.null import null_with
from scorers.evidence.prior import horizon_of, start_weight
from scorers.evidence.regime import COLD_DISPERSION, regime_of
from scorers.evidence.types import Floats
from scorers.fold import fold
from tests.reference import naive_evidence as naive
from tests.scorers.evidence.rows import IDEAL, SOURCES, WARM, Seen, Told, evidence, evident
from tests.scorers.situations import ERRORS, LATENCY, T0, spec
from tests.scorers.telemetry import EDGES, report, sample, tick, warm

HEALTHY = Seen(n=1000, bad=5, base_n=9000, base_bad=45, half=(4500, 21))
BROKEN = Seen(n=1000, bad=40, base_n=9000, base_bad=45, half=(4500, 21))
COUNTERS = {at.STEP_TICKS, at.DAMAGED}
tiers = pytest.mark.parametrize("known", [None, IDEAL, WARM], ids=["R0", "R2 with margins", "R2"])


def all_but_counters(memory: Floats) -> list[float]:
    return [value for index, value in enumerate(memory) if index not in COUNTERS]


# What adds nothing.

REFUSED = {
    "no data": None,
    "stable is missing": Seen(n=1000, bad=40, has_stable=False),
    "the canary's first reading": Seen(n=1000, bad=40, quality=Quality.FIRST),
    "stable's first reading": Seen(n=1000, bad=40, base_quality=Quality.FIRST),
    "the canary's exposure is assumed": Seen(n=1000, bad=40, quality=Quality.ASSUMED),
    "stable's exposure is assumed": Seen(n=1000, bad=40, base_quality=Quality.ASSUMED | Quality.SPANS),
}


@tiers
@pytest.mark.parametrize("why", REFUSED)
def test_a_refused_tick_adds_nothing_and_counts_as_damaged(known: Calibration | None, why: str) -> None:
    told = Told(known)
    told.ticks(12, HEALTHY)
    before = told.memory()
    score = told.tick(REFUSED[why])
    assert all_but_counters(told.memory()) == all_but_counters(before)
    assert told.memory()[at.STEP_TICKS] == before[at.STEP_TICKS] + 1
    assert told.memory()[at.DAMAGED] == before[at.DAMAGED] + 1
    assert evidence(score).damaged == pytest.approx(1 / 13)


@tiers
@pytest.mark.parametrize("overlap_s", [0.01, 2.0, 5.0, 55.0])
def test_a_tick_that_overlaps_an_earlier_one_adds_nothing_and_counts_as_damaged(
    known: Calibration | None, overlap_s: float
) -> None:
    told = Told(known)
    told.ticks(12, HEALTHY)
    before = told.memory()
    told.now -= overlap_s
    told.tick(BROKEN)
    changed = [
        index for index, (one, two) in enumerate(zip(before, told.memory(), strict=True)) if one != two
    ]
    assert set(changed) <= COUNTERS | {at.LAST_END, at.OVER_RUN}
    assert told.memory()[at.DAMAGED] == 1


@tiers
def test_a_tick_of_no_whole_weight_adds_nothing_but_stables_own_numbers(known: Calibration | None) -> None:
    told = Told(known)
    told.ticks(3, HEALTHY)
    before = told.memory()
    told.tick(BROKEN, is_settled=False)
    after = told.memory()
    for mark in (at.TICKS, at.STEP_TICKS, at.DAMAGED, at.BAD_ALL, at.N_ALL, at.SPENT, at.PEAK, at.CANARY_BAD):
        assert after[mark] == before[mark]
    layout = regime_of(told.context, ERRORS).layout
    start = layout.start_of(0) + SERIES_MARKS
    assert (after[start:] == before[start:]).all()
    assert (after[at.MARKS : layout.series_at] == before[at.MARKS : layout.series_at]).all()


@tiers
def test_what_was_counted_before_the_weight_is_no_evidence_about_it(known: Calibration | None) -> None:
    #  weight 5 %     │ weight 25 %
    #         [───────┼──)   a reading was missed: the increment covers both
    told = Told(known)
    told.ticks(12, HEALTHY)
    told.now += 5.0
    told.step, told.step_began = 1, told.now - 3.0
    before = told.memory()
    told.tick(Seen(n=1000, bad=40, base_bad=45, reach_s=5.0))
    assert told.memory()[at.N_ALL] in (0.0, before[at.N_ALL])
    assert told.memory()[at.TICKS] == before[at.TICKS]


@pytest.mark.parametrize("quality", [Quality.RESET, Quality.PARTIAL])
def test_numbers_with_something_lost_count_and_are_damaged(quality: Quality) -> None:
    told = Told()
    told.tick(Seen(n=1000, bad=5, base_n=9000, base_bad=45, quality=quality))
    memory = told.memory()
    assert (memory[at.TICKS], memory[at.N_ALL], memory[at.DAMAGED]) == (1, 1000, 1)


@pytest.mark.parametrize("quality", [Quality.SPANS, Quality.INEXACT])
def test_numbers_that_span_ticks_or_are_no_integers_are_whole(quality: Quality) -> None:
    told = Told()
    told.tick(Seen(n=1000.5, bad=5.25, base_n=9000, base_bad=45, quality=quality, base_quality=quality))
    memory = told.memory()
    assert (memory[at.TICKS], memory[at.N_ALL], memory[at.DAMAGED]) == (1, 1000.5, 0)


@tiers
def test_an_idle_canary_is_no_evidence_and_no_damage(known: Calibration | None) -> None:
    told = Told(known)
    told.ticks(12, HEALTHY)
    before = told.memory()
    score = told.tick(Seen(n=0, bad=0))
    assert told.memory()[at.TICKS] == before[at.TICKS]
    assert told.memory()[at.DAMAGED] == 0
    assert evidence(score).log_e_fail == pytest.approx(evidence(told.tick(None)).log_e_fail, abs=1e-9)


@tiers
def test_an_idle_stable_compares_with_nothing_and_the_limit_is_still_judged(
    known: Calibration | None,
) -> None:
    told = Told(known)
    before = evidence(told.ticks(12, HEALTHY))
    after = evidence(told.tick(Seen(n=1000, bad=5, base_n=0, base_bad=0)))
    assert after.log_e_fail == pytest.approx(before.log_e_fail, abs=1e-6)
    assert after.log_e_pass > before.log_e_pass


@tiers
def test_evidence_stays_what_it_was_through_ticks_that_do_not_count(known: Calibration | None) -> None:
    told = Told(known)
    counted = evidence(told.ticks(4, BROKEN))
    skipped = evidence(told.tick(None))
    for name in ("log_e_fail", "log_e_rollout", "log_e_pass", "log_e_slo", "anytime_p", "ratio", "ratio_low"):
        assert getattr(skipped, name) == getattr(counted, name), name


# Who reports late, and who brings the denominator.

TRACES = replace(ERRORS, signal="trace_error_ratio")
LOGS = replace(ERRORS, signal="log_error_ratio")


def test_a_slower_sources_ticks_count_once_each_beside_a_prompt_one() -> None:
    """Traces trail ten seconds behind metrics; each of their disjoint increments is one tick's evidence."""
    sources = (SOURCES[0], SourceRef(name="tempo", channel=Channel.TRACES, freshness=Freshness.NEAR))
    current = warm(spec(evident(gates=(ERRORS, TRACES), pass_count=100), sources=sources))
    assembler = Assembler()
    assembler.track("r-1", current.context, T0)
    for position in range(1, 21):
        end = T0 + 5.0 * position
        for source, signal, lag in ((sources[0], "error_rate", 0.0), (sources[1], "trace_error_ratio", 10.0)):
            if end - lag > T0:
                samples = [
                    sample(end - lag, arm=arm, signal=signal, events=0.0, exposure=n, age_s=lag)
                    for arm, n in ((Arm.CANARY, 500.0), (Arm.STABLE, 9500.0))
                ]
                for _, given_ in assembler.add(report(source.name, end - lag), samples, end + 0.5):
                    current = fold(current, given_).fold
    memory = np.frombuffer(current.gates[1].memory)
    assert memory[at.TICKS] >= 16
    assert memory[at.DAMAGED] <= 3


def log_ticks(*requests: SignalInput) -> tuple[RolloutFold, Score]:
    """Three ticks of log lines, 4 % of the canary's requests, with these readings of the requests."""
    current = warm(spec(evident(gates=(LOGS,)), sources=SOURCES))
    scores = []
    for position in range(1, 4):
        end = T0 + 5.0 * position
        shifted = tuple(replace(each, start=end - 5.0) for each in requests)
        lines = (
            SignalInput("log_error_ratio", Arm.CANARY, end - 5.0, 20.0, 1000.0),
            SignalInput("log_error_ratio", Arm.STABLE, end - 5.0, 2.0, 9500.0),
        )
        folded = fold(current, tick(end, (*shifted, *lines)))
        current = folded.fold
        scores.append(folded.evaluation.scores[0])
    return current, scores[-1]


def test_events_per_request_count_where_requests_were_measured() -> None:
    _, score = log_ticks(
        SignalInput("error_rate", Arm.CANARY, T0, 1.0, 500.0),
        SignalInput("error_rate", Arm.STABLE, T0, 1.0, 9500.0),
    )
    assert evidence(score).log_e_fail > 1.0


def test_events_per_request_are_no_evidence_where_requests_are_assumed() -> None:
    current, score = log_ticks(
        SignalInput("error_rate", Arm.CANARY, T0, 1.0, 500.0, quality=int(Quality.ASSUMED)),
        SignalInput("error_rate", Arm.STABLE, T0, 1.0, 9500.0),
    )
    assert evidence(score).damaged == 1.0
    assert np.frombuffer(current.gates[0].memory)[at.TICKS] == 0


def test_events_per_request_are_damaged_where_stables_requests_are_missing() -> None:
    _, score = log_ticks(SignalInput("error_rate", Arm.CANARY, T0, 1.0, 500.0))
    assert evidence(score).damaged == 1.0


# Steps.


def test_a_new_weight_starts_the_claim_and_the_bounds_afresh_and_goes_on_against_the_canary() -> None:
    told = Told()
    before = evidence(told.ticks(6, Seen(n=1000, bad=8, base_n=9000, base_bad=45)))
    told.go_to(1)
    told.tick(None)  # opens the step, and counts nothing
    score = told.tick(None)
    after = evidence(score)
    assert after.log_e_fail == before.log_e_fail
    assert (after.log_e_pass, after.claim, after.ratio, after.ratio_low) == (0.0, 0.0, None, None)
    assert after.damaged == 1.0
    assert told.memory()[at.BAD_ALL : at.N_WARM + 1].sum() == 0.0


def test_the_start_prior_is_spent_once_and_goes_where_regressions_begin() -> None:
    for learnt in (True, False):
        for steps, ticks_per_step, warm_ticks in ((5, 60, 8), (1, 20, 0), (3, 4, 9)):
            horizon, spent, weights = steps * ticks_per_step, 0.0, []
            was_margin = True
            for position in range(horizon + 50):
                step = min(position // ticks_per_step, steps - 1)
                since = position - step * ticks_per_step
                in_margin = since < warm_ticks
                weights.append(
                    start_weight(
                        position + 1, step, steps, horizon, since == 0, was_margin and not in_margin, learnt
                    )
                )
                was_margin = in_margin
            spent = sum(weights)
            assert spent <= 1 + 1e-12
            assert min(weights) >= 0.0
            if steps == 5:
                assert all(weight == 0.0 for weight in weights[horizon:])
                assert spent == pytest.approx(1.0)
                assert weights[0] == (0.7 if learnt else 0.15)
                assert weights[8] == pytest.approx((0.0 if learnt else 0.5) + (0.2 if learnt else 0.11) / 299)
                assert weights[60] == pytest.approx(0.1 / 4 + 0.2 / 299 if learnt else 0.03 + 0.11 / 299)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6), st.booleans()), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_no_way_through_the_steps_spends_more_than_the_whole_prior(way: list[tuple[int, int, bool]]) -> None:
    """Even back and forth between steps, with gaps and warm-ups anywhere."""
    told = Told(None, warmup_s=1.0)
    for step, times, missing in way:
        told.go_to(step)
        told.ticks(times, None if missing else HEALTHY)
        assert 0.0 <= told.memory()[at.SPENT] <= 1.0


def test_the_horizon_is_every_step_to_its_end() -> None:
    assert horizon_of(evident(max_step_time_s=900.0)) == 4 * 180
    assert horizon_of(evident(interval_s=1.0, max_step_time_s=60.0)) == 240


# Dispersion that this rollout shows.


@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([1, 40]))
@settings(max_examples=60, deadline=None)
def test_live_dispersion_equals_its_naive_twin(seed: int, is_split: bool, cluster: int) -> None:
    rng = np.random.default_rng(seed)
    row, seen = np.zeros((1, SERIES_MARKS)), []
    for _ in range(40):
        n = float(rng.integers(0, 3000))
        bad = min(n, float(cluster * rng.binomial(int(n) // cluster, 0.02)))
        half_n = np.floor(n / 2)
        half = (min(bad, float(rng.integers(0, int(bad) + 1))), half_n) if is_split else None
        counts = np.array([[3.0, 100.0, bad, n]])
        halves = np.array([[half[0], half[1], bad - half[0], n - half[1]] if half else [0.0, -1.0, 0.0, 0.0]])
        out = np.zeros(1)
        dispersions(row, 0, counts, halves, np.ones((1, 9)), np.array([True]), COLD_DISPERSION, out)
        bound = naive.live_dispersion(seen, COLD_DISPERSION)[-1]
        assert out[0] == pytest.approx(max(1.0, min(bound, 3.0 + bad)), rel=1e-9)
        if n > 0:
            seen.append((bad, n, half))


def test_where_nothing_is_known_a_ticks_events_count_as_one_cause_until_enough_was_seen() -> None:
    one, burst = (Seen(n=1000, bad=bad, base_n=9000, base_bad=0) for bad in (1, 15))
    single, many = (evidence(Told(None).tick(seen)).log_e_fail for seen in (one, burst))
    assert many == pytest.approx(single, abs=1e-6)
    assert evidence(Told(WARM).tick(burst)).log_e_fail > 10


# Histograms.


def latencies(shares: tuple[float, ...], n: float) -> tuple[float, ...]:
    return tuple(round(share * n) * 1.0 for share in shares)


def test_edges_come_from_stable_alone_and_the_tick_that_chose_them_is_no_evidence() -> None:
    current = warm(spec(evident(gates=(LATENCY,)), sources=SOURCES))
    stable = (0.3, 0.52, 0.74, 0.91, 0.96, 0.99)
    for position, canary in enumerate((stable, stable, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6))):
        other = warm(spec(evident(gates=(LATENCY,)), sources=SOURCES))
        end = T0 + 5.0
        signals = (
            SignalInput("latency_ms", Arm.CANARY, T0, 0.0, 1000.0, EDGES, latencies(canary, 1000)),
            SignalInput("latency_ms", Arm.STABLE, T0, 0.0, 9000.0, EDGES, latencies(stable, 9000)),
        )
        folded = fold(other, tick(end, signals))
        layout = regime_of(current.context, LATENCY).layout
        memory = np.frombuffer(folded.fold.gates[0].memory)
        edges = [memory[layout.start_of(series) + at.EDGE] for series in range(SERIES_OF_HISTOGRAM)]
        assert edges == [100.0, 200.0, 400.0, 800.0, 2000.0], position
        assert evidence(folded.evaluation.scores[0]).log_e_fail == pytest.approx(0.0, abs=1e-9)


def test_a_source_without_the_chosen_buckets_brings_no_evidence() -> None:
    current = warm(spec(evident(gates=(LATENCY,)), sources=SOURCES))
    shares = (0.3, 0.52, 0.74, 0.91, 0.96, 0.99)
    other_edges = tuple(edge + 1 for edge in EDGES)
    for position in range(1, 6):
        end = T0 + 5 * position
        edges = EDGES if position == 1 else other_edges
        slow = shares if position == 1 else (0.0,) * 6
        signals = (
            SignalInput("latency_ms", Arm.CANARY, end - 5, 0.0, 1000.0, edges, latencies(slow, 1000)),
            SignalInput("latency_ms", Arm.STABLE, end - 5, 0.0, 9000.0, EDGES, latencies(shares, 9000)),
        )
        folded = fold(current, tick(end, signals))
        current = folded.fold
    assert evidence(folded.evaluation.scores[0]).log_e_fail == pytest.approx(0.0, abs=1e-9)


# Layout.


def test_a_gates_floats_have_a_place_each_and_no_other() -> None:
    nulls = (null_with(0.0, 1.0), null_with(0.25, 1.0), null_with(0.35, 0.95))
    for series in (1, 5):
        layout = layout_of(series, nulls)
        starts = [layout.limit_at, layout.ratios_at]
        for index in range(series):
            starts += [layout.start_of(index)] + [layout.filter_at(index, null) for null in range(3)]
        starts.append(layout.floats)
        assert all(one < two for one, two in pairwise(starts))
        assert starts[0] == at.MARKS
        for index in range(series):
            for null in range(3):
                width = 13 * nulls[null].points
                following = min(each for each in starts if each > layout.filter_at(index, null))
                assert following == layout.filter_at(index, null) + width


def test_memory_of_another_layout_is_refused() -> None:
    told = Told(WARM)
    told.tick(HEALTHY)
    other = Told(None)
    other.states = told.states
    with pytest.raises(ValueError, match="numbers where"):
        other.tick(HEALTHY)


@tiers
def test_no_counts_make_anything_infinite_or_undefined(known: Calibration | None) -> None:
    told = Told(known)
    for n, base_n in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1e9, 1.0), (1.0, 1e9), (1e9, 1e9)):
        for bad in (0.0, n):
            for base_bad in (0.0, base_n):
                score = told.tick(Seen(n=n, bad=bad, base_n=base_n, base_bad=base_bad))
                assert np.isfinite(told.memory()).all()
                assert np.isfinite(
                    [
                        value
                        for value in (
                            getattr(evidence(score), name) for name in evidence(score).__struct_fields__
                        )
                        if isinstance(value, float)
                    ]
                ).all()


def test_a_source_slower_than_the_tick_makes_up_for_the_ticks_it_left_out() -> None:
    """Scraped every third tick: each answer covers three, so none of them is damaged."""
    current = warm(spec(evident(pass_count=100), sources=SOURCES[:1]))
    assembler = Assembler()
    assembler.track("r-1", current.context, T0)
    for position in range(1, 31):
        end = T0 + 5.0 * position
        samples = (
            [
                sample(end, start=end - 15.0, arm=arm, signal="error_rate", events=0.0, exposure=n)
                for arm, n in ((Arm.CANARY, 500.0), (Arm.STABLE, 9500.0))
            ]
            if position % 3 == 0
            else []
        )
        for _, given_ in assembler.add(report(SOURCES[0].name, end), samples, end + 0.5):
            current = fold(current, given_).fold
    memory = np.frombuffer(current.gates[0].memory)
    assert (memory[at.TICKS], memory[at.STEP_TICKS]) == (10, 30)
    assert memory[at.DAMAGED] == 0
