"""The judge as a whole: equal to the naive twins put together, to itself in any batch, and to its replays."""

from __future__ import annotations

from collections.abc import Iterator
from math import exp, inf, log

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from domain.calibration import Calibration, Law, Tier
from domain.decision import CommandKind
from domain.policy import OnFail
from domain.records import Evaluation, Input, RestartInput, SignalInput
from domain.rollout import GateState, PauseCause, Phase, RolloutFold
from domain.signal import Arm
from domain.verdict import Verdict
from scorers.evidence import layout as at
from scorers.evidence.judge import Answer, judge
from scorers.evidence.margins import margin_at
from scorers.evidence.prior import horizon_of, start_weight
from scorers.evidence.regime import COLD_DISPERSION, COLD_LAWS, regime_of
from scorers.fold import Folded, fold, is_over
from scorers.gate_row import GateRow
from scorers.replay import verify
from tests.reference import naive_evidence as naive
from tests.reference.naive_evidence import Tick
from tests.reference.naive_learning import dispersion
from tests.scorers.evidence.rows import IDEAL, SOURCES, WARM, Seen, Told, evidence, evident
from tests.scorers.situations import ERRORS, LATENCY, T0, spec
from tests.scorers.telemetry import EDGES, begun, command, run, tick, verified

WANDERS = Law(
    tau=0.2,
    memory_s=30.0,
    dispersion=(1.0, 1.1, 1.3, 1.6, 2.0, 2.4, 2.8, 3.0, 3.0),
    warmup_margin=((3.0, 2.0, 1.4), (1.6, 1.2)),
    has_learnt_warmup=True,
)
LEARNT = Calibration(tier=Tier.R2, interval_s=5.0, laws={"error_rate": WANDERS}, rates={"error_rate": 0.004})
STABLE_ONLY = Calibration(
    tier=Tier.R1,
    interval_s=5.0,
    laws={"error_rate": Law(tau=0.25)},
    halves={"error_rate": Law(tau=0.15)},
)
KNOWN = {"R0": None, "R1": STABLE_ONLY, "R2": LEARNT, "R2, ideal": WARM, "R2, margins of five": IDEAL}
LOGS = replace(ERRORS, signal="log_error_ratio")


def drawn(rng: np.random.Generator, *, ratio: float = 1.0, rps: float = 200.0, share: float = 0.1) -> Seen:
    """One tick of a service that fails 0.5 % of its requests; stable's halves told apart."""
    n = float(rng.poisson(rps * 5 * share))
    base = [float(rng.poisson(rps * 2.5 * (1 - share))) for _ in range(2)]
    bad = [float(rng.binomial(int(each), 0.005)) for each in base]
    return Seen(
        n=n,
        bad=float(rng.binomial(int(n), min(1.0, 0.005 * ratio))),
        base_n=sum(base),
        base_bad=sum(bad),
        half=(base[0], bad[0]),
    )


# Equal to the twins.


def steps_of(told: Told, rng: np.random.Generator, ratio: float) -> Iterator[tuple[int, float, Seen]]:
    """Three steps of twelve ticks: step, seconds since its weight, and what came."""
    for step, share in enumerate((0.05, 0.25, 0.5)):
        told.go_to(step)
        for position in range(12):
            yield step, 5.0 * position, drawn(rng, ratio=ratio, share=share)


def naively(told: Told, met: list[tuple[int, float, Seen]], law: Law, *, live: bool) -> list[Tick]:
    """The same ticks with their margins, dispersions and weights, worked out one by one."""
    window_s, horizon = 40.0, horizon_of(told.policy)
    splits = [(seen.base_bad, seen.base_n, seen.half and (seen.half[1], seen.half[0])) for _, _, seen in met]
    bounds = naive.live_dispersion(splits, COLD_DISPERSION)
    ticks, was_margin = [], True
    for position, (step, since, seen) in enumerate(met):
        rho, is_bound = margin_at(law, step, since, window_s)
        events = seen.bad + seen.base_bad
        phi = max(1.0, min(bounds[position], events)) if live else dispersion(events, list(law.dispersion))
        weight = start_weight(
            position + 1,
            step,
            len(told.policy.weights_bp),
            horizon,
            since == 0.0,
            was_margin and since >= window_s,
            law.has_learnt_warmup,
        )
        was_margin = since < window_s
        ticks.append(
            Tick(seen.bad, seen.n, seen.base_bad, seen.base_n, rho, phi, float(weight), is_bound=is_bound)
        )
    return ticks


def kept(law: Law) -> float:
    return 1.0 if law.memory_s is None else exp(-5.0 / law.memory_s)


@pytest.mark.parametrize("name", ["R0", "R2", "R2, ideal", "R2, margins of five"])
@pytest.mark.parametrize("ratio", [1.0, 8.0])
def test_evidence_against_the_canary_equals_the_naive_twin(name: str, ratio: float) -> None:
    known = KNOWN[name]
    told = Told(known, warmup_s=30.0)
    met = list(steps_of(Told(known), np.random.default_rng(21), ratio))
    law = known.laws["error_rate"] if known else COLD_LAWS[0]
    ticks = naively(told, met, law, live=known is None)
    nulls = COLD_LAWS if known is None else (law,)
    wanted = [
        min(values)
        for values in zip(
            *([log_e for log_e, _ in naive.filtered(each.tau, kept(each), ticks)] for each in nulls),
            strict=True,
        )
    ]
    peak = -inf
    for (step, _, seen), log_e in zip(met, wanted, strict=True):
        if step != told.step:
            told.go_to(step)
        found = evidence(told.tick(seen))
        peak = max(peak, log_e)
        assert found.log_e_fail == pytest.approx(log_e, abs=2e-9)
        assert found.anytime_p == pytest.approx(min(1.0, exp(-max(peak, 0.0))), abs=1e-9)
    assert (wanted[-1] > 10) == (ratio > 1)


def test_evidence_about_the_limit_equals_the_naive_twin() -> None:
    told = Told(WARM, warmup_s=10.0)
    met = list(steps_of(Told(WARM), np.random.default_rng(22), 1.6))
    law = WARM.laws["error_rate"]
    weights = [each.weight for each in naively(told, met, law, live=False)]
    breach = naive.breach(
        [(seen.bad, seen.n, weight) for (_, _, seen), weight in zip(met, weights, strict=True)],
        0.01,
        1.0,
        is_count=False,
    )
    for position, (step, since, seen) in enumerate(met):
        if step != told.step:
            told.go_to(step)
        found = evidence(told.tick(seen))
        assert found.log_e_slo == pytest.approx(breach[position], abs=2e-9)
        of_step = [(other, each) for other_step, other, each in met[: position + 1] if other_step == step]
        if since >= 10.0:
            limit = 0.01 * found.claim
            halves = [
                naive.kept(
                    sum(each.bad for at_s, each in of_step if at_s >= start),
                    sum(each.n for at_s, each in of_step if at_s >= start),
                    limit,
                    1.0,
                    is_count=False,
                    hope=min(1.0, 0.005 / limit),
                )
                for start in (0.0, 10.0)
            ]
            assert found.log_e_pass == pytest.approx(naive.log_sum(halves) - log(2), abs=2e-9)
        else:
            assert found.log_e_pass == 0.0
        ticks = [Tick(each.bad, each.n, each.base_bad, each.base_n) for _, each in of_step]
        grid = list(np.exp(np.arange(-18, 31) / 6.0))
        low, high = naive.bounds(naive.ratio_logs(ticks, grid), grid, 0.025)
        for value, wanted in ((found.ratio_low, low), (found.ratio_high, high)):
            assert value == (None if wanted is None else pytest.approx(wanted, abs=2e-9))


# Bits.


def many(size: int, rng: np.random.Generator) -> list[Told]:
    """Rollouts of every tier, of one gate or three, among them histograms."""
    gates = [(ERRORS,), (ERRORS, LOGS), (LOGS, ERRORS)]
    return [
        Told(list(KNOWN.values())[rng.integers(len(KNOWN))], gates=gates[rng.integers(3)], warmup_s=10.0)
        for _ in range(size)
    ]


def asked(told: Told, rng: np.random.Generator) -> list[GateRow]:
    seen = [
        None if rng.random() < 0.05 else drawn(rng, ratio=float(rng.choice([1.0, 1.0, 20.0])))
        for _ in told.policy.gates
    ]
    return told.rows(seen, is_settled=bool(rng.random() < 0.95))


def test_a_thousand_rollouts_are_judged_to_the_same_bits_alone_together_and_in_any_batch() -> None:
    rng = np.random.default_rng(23)
    rollouts, verdicts = many(1000, rng), set()
    for _ in range(4):
        rows = [asked(told, rng) for told in rollouts]
        together = judge(rows)
        alone = [judge([each])[0] for each in rows]
        order, batched = list(rng.permutation(1000)), {}
        while order:
            size = int(rng.integers(1, 200))
            batch, order = order[:size], order[size:]
            batched.update(zip(batch, judge([rows[each] for each in batch]), strict=True))
        stored = [msgspec.msgpack.encode(each) for each in together]
        assert stored == [msgspec.msgpack.encode(each) for each in alone]
        assert stored == [msgspec.msgpack.encode(batched[each]) for each in range(1000)]
        for told, answers in zip(rollouts, together, strict=True):
            told.states = [state for state, _ in answers]
            told.now += 5.0
            verdicts |= {score.verdict for _, score in answers}
    assert verdicts == set(Verdict)


def test_states_restored_from_their_bytes_go_on_the_same() -> None:
    rng = np.random.default_rng(24)
    for name, known in KNOWN.items():
        whole, stopped = Told(known, warmup_s=10.0), Told(known, warmup_s=10.0)
        for position in range(30):
            seen = drawn(rng, ratio=2.0)
            one, other = whole.all(seen), stopped.all(seen)
            assert msgspec.msgpack.encode(one) == msgspec.msgpack.encode(other), (name, position)
            stored = msgspec.msgpack.encode(stopped.states)
            stopped.states = msgspec.msgpack.decode(stored, type=list[GateState])
            if position % 10 == 9:
                for each in (whole, stopped):
                    each.go_to(each.step + 1)


def test_rows_are_only_read() -> None:
    told = Told(LEARNT)
    told.ticks(3, drawn(np.random.default_rng(25)))
    rows = told.rows([drawn(np.random.default_rng(26), ratio=9.0)])
    before = rows[0].state.memory
    first: list[list[Answer]] = judge([rows])
    assert rows[0].state.memory == before
    assert msgspec.msgpack.encode(judge([rows])) == msgspec.msgpack.encode(first)


def test_nobody_asks_about_nothing() -> None:
    assert judge([]) == []
    assert judge([[], []]) == [[], []]


# The guard.


def test_stable_halves_that_differ_take_history_away() -> None:
    told, trusting = Told(STABLE_ONLY), Told(replace(STABLE_ONLY, halves={}))
    uneven = Seen(n=1000, bad=20, base_n=9000, base_bad=90, half=(4500, 80))
    told.ticks(12, uneven)
    trusting.ticks(12, uneven)
    assert told.memory()[at.GUARD] == 1.0
    guarded, unguarded = evidence(told.tick(uneven)), evidence(trusting.tick(uneven))
    assert guarded.log_e_fail < unguarded.log_e_fail
    even = Seen(n=1000, bad=20, base_n=9000, base_bad=90, half=(4500, 45))
    calm = Told(STABLE_ONLY)
    calm.ticks(12, even)
    assert calm.memory()[at.GUARD] == 0.0
    assert regime_of(calm.context, ERRORS).has_guard


# Through the fold.


class Service:
    """400 requests a second, split between the arms by the weight in force; each fails its own share."""

    def __init__(self, seed: int, *, stable: float, canary: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.shares = {Arm.CANARY: canary, Arm.STABLE: stable}

    def signals(self, end: float, weight_bp: int) -> tuple[SignalInput, ...]:
        signals: list[SignalInput] = []
        parts = {Arm.CANARY: weight_bp / 10_000, Arm.STABLE: 1 - weight_bp / 10_000}
        for arm, part in parts.items():
            n = int(self.rng.poisson(2000 * part))
            bad = float(self.rng.binomial(n, self.shares[arm]))
            slow = np.sort(self.rng.lognormal(4.5, 0.6, n))
            counts = tuple(float(each) for each in np.searchsorted(slow, EDGES, side="right"))
            signals += [
                SignalInput("error_rate", arm, end - 5.0, bad, float(n)),
                SignalInput("latency_ms", arm, end - 5.0, 0.0, float(n), EDGES, counts),
            ]
        return tuple(signals)


def rolled_out(
    service: Service, *, ticks: int = 150, known: Calibration | None = None, **policy: object
) -> list[Folded]:
    """A rollout with both gates from its start until it is over, or for so many ticks."""
    rules = evident(**({"gates": (ERRORS, LATENCY), "warmup_s": 30.0} | policy))
    first = begun(spec(rules, sources=SOURCES, calibration=known))
    folded, now = [first], T0
    while not is_over(folded[-1].fold) and len(folded) < ticks:
        current = folded[-1].fold
        if current.state.in_flight is not None:
            folded.append(fold(current, verified(current, now)))
        else:
            now += 5.0
            folded.append(fold(current, tick(now, service.signals(now, current.state.verified_bp))))
    return folded


@pytest.mark.parametrize("known", [None, WARM], ids=["R0", "errors known"])
@pytest.mark.parametrize("seed", [31, 32])
def test_a_healthy_rollout_is_promoted_step_by_step(known: Calibration | None, seed: int) -> None:
    folded = rolled_out(Service(seed, stable=0.003, canary=0.003), known=known)
    assert folded[-1].fold.state.phase is Phase.PROMOTED
    weights = [each.evaluation.decision.weight_bp for each in folded if each.evaluation.decision]
    assert weights == [0, 500, 2500, 5000, 10_000, 10_000]


@pytest.mark.parametrize("known", [None, WARM], ids=["R0", "errors known"])
@pytest.mark.parametrize("seed", [33, 34])
def test_a_rollout_with_fourfold_errors_is_rolled_back(known: Calibration | None, seed: int) -> None:
    folded = rolled_out(Service(seed, stable=0.008, canary=0.032), known=known, on_fail=OnFail.PAUSE)
    states = [each.fold.state for each in folded]
    assert states[-1].phase is Phase.ROLLED_BACK
    assert max(state.verified_bp for state in states) <= 2500
    severe = [each for each in folded if each.evaluation.verdict is Verdict.SEVERE]
    assert "error_rate" in severe[0].fold.state.reason
    assert " on stable" in severe[0].fold.state.reason


@pytest.mark.parametrize("seed", [35, 36])
def test_a_breach_that_stable_shares_pauses_and_rolls_nothing_back(seed: int) -> None:
    folded = rolled_out(Service(seed, stable=0.03, canary=0.03))
    state = folded[-1].fold.state
    assert state.phase is Phase.PAUSED
    assert PauseCause.SHARED in state.pause_causes
    assert Verdict.SEVERE not in {each.evaluation.verdict for each in folded}


def history(seed: int) -> list[Folded]:
    """A rollout in which much happens: missing ticks, operators, restarts, changed gates."""
    service = Service(seed, stable=0.004, canary=0.006)
    rng = np.random.default_rng(seed)
    folded = rolled_out(service, ticks=12)
    now = folded[-1].fold.state.now
    for position in range(90):
        current = folded[-1].fold
        if is_over(current):
            break
        now = (now // 5.0 + 1) * 5.0
        given: Input = tick(now, service.signals(now, current.state.verified_bp))
        if current.state.in_flight is not None:
            given = verified(current, now)
        elif position == 40:
            gates = (replace(ERRORS, slo=0.02, severe=0.2), LATENCY)
            given = command(
                CommandKind.CHANGE_POLICY, now, policy=replace(current.context.policy, gates=gates)
            )
        elif rng.random() < 0.1:
            others: list[Input] = [
                tick(now, silent=("metrics",)),
                tick(now, service.signals(now, current.state.verified_bp)[:2]),
                command(CommandKind.PAUSE, now),
                command(CommandKind.RESUME, now, force=True),
                RestartInput(now=now, generation_floor=current.state.generation),
            ]
            given = others[rng.integers(len(others))]
        folded.append(fold(current, given))
    return folded


@pytest.mark.parametrize("seed", [41, 42])
def test_going_on_from_a_checkpoint_equals_never_having_stopped(seed: int) -> None:
    whole = history(seed)
    assert len(whole) > 40
    inputs = [each.evaluation.input for each in whole]
    for stop in (3, 20, 38):
        for codec in (msgspec.msgpack, msgspec.json):
            restored = codec.decode(codec.encode(whole[stop].fold), type=RolloutFold)
            resumed = run(restored, inputs[stop + 1 :])
            one = [msgspec.msgpack.encode(each.evaluation) for each in whole[stop + 1 :]]
            assert one == [msgspec.msgpack.encode(each.evaluation) for each in resumed]
            assert msgspec.msgpack.encode(resumed[-1].fold) == msgspec.msgpack.encode(whole[-1].fold)


@pytest.mark.parametrize("seed", [43, 44])
@pytest.mark.parametrize("codec", [msgspec.msgpack, msgspec.json], ids=["msgpack", "json"])
def test_a_stored_rollout_replays_without_a_difference(seed: int, codec: object) -> None:
    stored = [
        codec.decode(codec.encode(each.evaluation), type=Evaluation)  # type: ignore[attr-defined]  # a module
        for each in history(seed)
    ]
    assert {score.evidence is not None for each in stored for score in each.scores} == {True}
    assert verify(stored) == []
    at_ = next(position for position, each in enumerate(stored) if each.scores)
    first = stored[at_].scores[0]
    assert first.evidence is not None
    lied = replace(first.evidence, log_e_fail=first.evidence.log_e_fail + 1e-9)
    stored[at_] = replace(stored[at_], scores=(replace(first, evidence=lied), *stored[at_].scores[1:]))
    assert [(each.seq, each.field) for each in verify(stored)] == [(stored[at_].seq, "scores")]


# The promise, through everything.


@pytest.mark.parametrize("name", ["R0", "R2, margins of five"])
def test_healthy_rollouts_through_the_whole_judge_are_hardly_ever_severe(name: str) -> None:
    """150 rollouts of three steps of three minutes, judged together; chance brings 3 about once in 3,000."""
    rng = np.random.default_rng(51)
    rollouts = [Told(KNOWN[name], warmup_s=30.0) for _ in range(150)]
    severe = [False] * len(rollouts)
    for step, share in enumerate((0.05, 0.25, 0.5)):
        for told in rollouts:
            told.go_to(step)
        for _ in range(36):
            answers = judge([told.rows([drawn(rng, share=share)]) for told in rollouts])
            for position, (told, (answer,)) in enumerate(zip(rollouts, answers, strict=True)):
                told.states, told.now = [answer[0]], told.now + 5.0
                severe[position] = severe[position] or answer[1].verdict is Verdict.SEVERE
    assert sum(severe) <= 4
