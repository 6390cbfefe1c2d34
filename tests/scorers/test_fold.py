"""The fold: what a checkpoint holds is all there is, and no rollout knows of its neighbours."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.decision import ActionOutcome, CommandKind, DecisionKind
from domain.errors import IllegalTransition, PolicyError, RecordError
from domain.records import (
    ActionInput,
    Command,
    CommandInput,
    Evaluation,
    Input,
    RestartInput,
    SignalInput,
    TickInput,
)
from domain.rollout import Acted, Phase, RolloutFold, SourceRef
from domain.signal import Arm, Channel, Freshness
from domain.verdict import Verdict
from scorers.fold import STATE_EVERY, Folded, begin, fold, fold_clock, fold_ticks, is_over
from tests.scorers.situations import ERRORS, LATENCY, T0, policy, spec, start_command
from tests.scorers.telemetry import (
    begun,
    command,
    errors,
    everything,
    quick,
    run,
    sample,
    tick,
    verified,
    warm,
)

LOGS = replace(ERRORS, signal="log_error_ratio", slo=0.005, severe=0.025)
TRACES = replace(ERRORS, signal="trace_error_ratio", slo=0.005, severe=0.025, required=False)
FOUR = (ERRORS, LATENCY, LOGS, TRACES)
SOURCES = tuple(SourceRef(name=each.value, channel=each) for each in Channel)


def history(seed: int, *, ticks: int = 60) -> tuple[RolloutFold, list[Input]]:
    """A rollout of four gates from its start, and what it met: most ticks good, some bad, some missing."""
    drawn = random.Random(seed)
    first = begun(spec(policy(gates=FOUR), sources=SOURCES)).fold
    now, inputs, current = T0, [], first
    for position in range(ticks):
        now += 5.0
        given_: Input = tick(now, everything(now, drawn, bad_share=drawn.choice([0.001, 0.001, 0.03])))
        if current.state.in_flight is not None:
            given_ = verified(current, now)
        elif drawn.random() < 0.1:
            others: list[Input] = [
                tick(now, silent=("metrics",)),
                command(CommandKind.PAUSE, now),
                command(CommandKind.RESUME, now, force=True),
                command(CommandKind.ADVANCE, now, force=True),
                RestartInput(now=now, generation_floor=current.state.generation + position % 3),
            ]
            given_ = drawn.choice(others)
        inputs.append(given_)
        current = fold(current, given_).fold
    return first, inputs


def test_a_healthy_rollout_goes_from_start_to_promoted() -> None:
    first = begun(spec(quick()))
    current, now, met = first.fold, T0, [first.evaluation]
    while not is_over(current):
        assert len(met) < 100, "it does not end"
        now += 5.0
        step = verified(current, now) if current.state.in_flight else tick(now, errors(now, 0.0, 200.0))
        folded = fold(current, step)
        met.append(folded.evaluation)
        current = folded.fold
    assert current.state.phase is Phase.PROMOTED
    weights = [each.decision.weight_bp for each in met if each.decision]
    assert weights == [0, 500, 2000, 10_000, 10_000]
    assert [each.seq for each in met] == list(range(1, len(met) + 1))
    assert met[-1].fold == current


def test_a_broken_canary_is_rolled_back_on_its_first_severe_tick() -> None:
    current = warm(spec(quick()))
    folded = fold(current, tick(T0 + 5.0, errors(T0 + 5.0, 30.0, 100.0)))
    assert (folded.evaluation.verdict, folded.evaluation.kind) == (Verdict.SEVERE, DecisionKind.ROLL_BACK)
    assert "error_rate" in folded.fold.state.reason


def test_the_window_of_a_step_holds_nothing_of_the_step_before() -> None:
    #  step 1     [──)[──)[──) bad ticks of 5 %
    #  step 2                  [──) the first tick is clean, and so is the window
    current = warm(spec(quick(pass_count=1)))
    current = fold(current, tick(T0 + 5.0, errors(T0 + 5.0, 0.0, 200.0))).fold
    assert current.state.phase is Phase.SHIFTING
    bad = fold(current, tick(T0 + 10.0, errors(T0 + 10.0, 9.0, 200.0))).fold
    current = fold(bad, verified(bad, T0 + 12.0)).fold
    spans = fold(current, tick(T0 + 15.0, errors(T0 + 15.0, 9.0, 200.0))).fold
    assert spans.gates[0].window == ()
    clean = fold(spans, tick(T0 + 20.0, errors(T0 + 20.0, 0.0, 200.0))).fold
    assert [each.start for each in clean.gates[0].window] == [T0 + 15.0]


def test_ticks_of_the_warm_up_are_shown_and_do_not_enter_the_judged_window() -> None:
    current = warm(spec(policy(warmup_s=10.0, min_step_time_s=0.0)))
    for end in (T0 + 5.0, T0 + 10.0):
        folded = fold(current, tick(end, errors(end, 3.0, 100.0)))
        current = folded.fold
        assert (folded.evaluation.verdict, current.state.phase) == (Verdict.FAIL, Phase.WARMING)
    after = fold(current, tick(T0 + 15.0, errors(T0 + 15.0, 0.0, 100.0)))
    assert (after.evaluation.verdict, after.fold.state.phase) == (Verdict.PASS, Phase.ANALYSING)
    assert [each.start for each in after.fold.gates[0].window] == [T0 + 10.0]


@pytest.mark.parametrize("seed", range(5))
def test_going_on_from_a_checkpoint_equals_never_having_stopped(seed: int) -> None:
    first, inputs = history(seed)
    whole = run(first, inputs)
    for stop in (1, 17, 40):
        stored = msgspec.msgpack.encode(whole[stop - 1].fold)
        resumed = run(msgspec.msgpack.decode(stored, type=RolloutFold), inputs[stop:])
        one = [msgspec.msgpack.encode(each.evaluation) for each in whole[stop:]]
        other = [msgspec.msgpack.encode(each.evaluation) for each in resumed]
        assert one == other
        assert msgspec.msgpack.encode(whole[-1].fold) == msgspec.msgpack.encode(resumed[-1].fold)


@pytest.mark.parametrize("seed", range(3))
def test_evaluations_survive_json_and_messagepack(seed: int) -> None:
    first, inputs = history(seed)
    for each in run(first, inputs):
        for codec in (msgspec.json, msgspec.msgpack):
            stored = codec.encode(each.evaluation)
            assert codec.decode(stored, type=Evaluation) == each.evaluation
            assert codec.encode(codec.decode(stored, type=Evaluation)) == stored


def test_a_thousand_rollouts_are_judged_alike_alone_together_and_in_any_batch() -> None:
    drawn = random.Random(11)
    base = warm(spec(quick(gates=FOUR), sources=SOURCES))
    folds = [named(base, f"r-{position}") for position in range(1000)]
    verdicts = set()
    for end in (T0 + 5.0, T0 + 10.0):
        ticks = [tick(end, everything(end, drawn, bad_share=drawn.choice([0.001, 0.02]))) for _ in folds]
        alone = [fold_ticks([each], [met])[0] for each, met in zip(folds, ticks, strict=True)]
        together = fold_ticks(folds, ticks)
        batched = dict(in_batches(folds, ticks, drawn))
        stored = [msgspec.msgpack.encode(each.evaluation) for each in alone]
        assert stored == [msgspec.msgpack.encode(each.evaluation) for each in together]
        assert stored == [msgspec.msgpack.encode(batched[position].evaluation) for position in range(1000)]
        folds = [each.fold for each in together]
        verdicts |= {each.evaluation.verdict for each in together}
    assert len(verdicts) > 2


def named(base: RolloutFold, rollout_id: str) -> RolloutFold:
    return replace(
        base,
        spec=replace(base.spec, rollout_id=rollout_id),
        state=replace(base.state, rollout_id=rollout_id),
    )


def in_batches(
    folds: list[RolloutFold], ticks: list[TickInput], drawn: random.Random
) -> Iterator[tuple[int, Folded]]:
    """The same ticks in batches of random members and sizes."""
    order = list(range(len(folds)))
    drawn.shuffle(order)
    while order:
        size = drawn.randrange(1, 200)
        batch, order = order[:size], order[size:]
        folded = fold_ticks([folds[each] for each in batch], [ticks[each] for each in batch])
        yield from zip(batch, folded, strict=True)


# Time.


def test_time_that_changes_nothing_is_not_folded() -> None:
    for current in (warm(), begun().fold):
        before = msgspec.msgpack.encode(current)
        assert fold_clock(current, T0 + 1.0) is None
        assert msgspec.msgpack.encode(current) == before


def test_time_that_changes_something_is_one_record() -> None:
    current = begun().fold
    folded = fold_clock(current, T0 + 120.0)
    assert folded is not None
    assert folded.fold.state.phase is Phase.FAILED
    assert folded.evaluation.seq == current.state.seq + 1
    assert fold_clock(folded.fold, T0 + 1e6) is None


def test_a_long_pause_is_told_by_the_clock_once() -> None:
    current = fold(warm(), command(CommandKind.PAUSE, T0 + 1.0)).fold
    assert fold_clock(current, T0 + 300.9) is None
    told = fold_clock(current, T0 + 301.0)
    assert told is not None
    assert fold_clock(told.fold, T0 + 302.0) is None


# What is no input.


def test_a_rollout_begins_with_a_start_that_has_a_spec() -> None:
    with pytest.raises(RecordError, match="start"):
        begin(replace(start_command(spec()), spec=None), T0)
    with pytest.raises(RecordError, match="start"):
        begin(Command(command_id="c", rollout_id="r-1", kind=CommandKind.PAUSE, actor="ann"), T0)
    with pytest.raises(PolicyError, match="rise"):
        begin(start_command(spec(replace(policy(), weights_bp=(10_000, 500)))), T0)


def test_an_order_that_was_merely_sent_is_no_input() -> None:
    acted = Acted(generation=1, outcome=ActionOutcome.SENT, observed_bp=None, at=T0)
    with pytest.raises(IllegalTransition, match="sent"):
        fold(begun().fold, ActionInput(now=T0, acted=acted))


# What the judge is told.


def test_no_data_is_said_in_the_sources_own_words() -> None:
    current = warm(spec(quick()))
    said = fold(current, tick(T0 + 5.0, problems={"prom": "503 from prom"})).evaluation
    assert (said.verdict, said.scores[0].reason) == (
        Verdict.NO_DATA,
        "error_rate: no data: prom: 503 from prom",
    )
    silent = fold(current, tick(T0 + 5.0, silent=("prom",))).evaluation
    assert "prom is silent" in silent.scores[0].reason
    missing = fold(current, tick(T0 + 5.0)).evaluation
    assert "missing or too old" in missing.scores[0].reason


@pytest.mark.parametrize(("age_s", "verdict"), [(20.0, Verdict.PASS), (20.1, Verdict.NO_DATA)])
def test_a_near_sources_numbers_may_be_as_old_as_its_class_and_two_ticks(
    age_s: float, verdict: Verdict
) -> None:
    sources = (SOURCES[0], replace(SOURCES[2], freshness=Freshness.NEAR))
    gates = (ERRORS, replace(TRACES, required=True))
    current = warm(spec(quick(gates=gates), sources=sources))
    end = T0 + 20.0
    spans = SignalInput("trace_error_ratio", Arm.CANARY, T0 + 5.0, 0.0, 100.0, (), (), age_s)
    folded = fold(current, tick(end, (*errors(end, 0.0), spans)))
    assert folded.evaluation.scores[1].verdict is verdict


def test_an_idle_canary_is_told_from_a_silent_one() -> None:
    current = warm(spec(quick()))
    folded = fold(current, tick(T0 + 5.0, errors(T0 + 5.0, 0.0, 0.0)))
    assert folded.evaluation.verdict is Verdict.INCONCLUSIVE
    assert "no traffic" in folded.evaluation.scores[0].reason


def test_ticks_of_a_backlog_give_no_traffic() -> None:
    current = warm(spec(quick(pass_count=1)))
    stale = fold(current, tick(T0 + 5.0, errors(T0 + 5.0, 0.0, 200.0), now=T0 + 60.0))
    assert (stale.evaluation.verdict, stale.fold.state.phase) == (Verdict.PASS, Phase.ANALYSING)
    fresh = fold(stale.fold, tick(T0 + 55.0, errors(T0 + 55.0, 0.0, 200.0), now=T0 + 60.0))
    assert fresh.fold.state.phase is Phase.SHIFTING


# Changing gates in flight.


def changing(now: float, **changes: Any) -> CommandInput:
    return command(CommandKind.CHANGE_POLICY, now, **changes)


def test_changed_gates_make_a_new_context_and_fresh_windows() -> None:
    before = fold(warm(spec(quick())), tick(T0 + 5.0, errors(T0 + 5.0, 0.0))).fold
    wanted = quick(gates=(replace(ERRORS, slo=0.02), LATENCY))
    folded = fold(before, changing(T0 + 6.0, policy=wanted))
    assert folded.evaluation.answer is not None
    assert folded.evaluation.answer.accepted
    context = folded.fold.context
    assert (context.policy, context.changes) == (wanted, 1)
    assert context.digest != before.context.digest
    assert folded.evaluation.context == context.digest
    assert [gate.window for gate in folded.fold.gates] == [(), ()]
    assert (folded.fold.state.passes, before.state.passes) == (0, 1)
    assert folded.evaluation.fold == folded.fold


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (None, "needs the new policy"),
        (quick(weights_bp=(1000, 10_000)), "only gates"),
        (quick(pass_count=1), "only gates"),
        (replace(quick(), gates=()), "at least one required gate"),
        (quick(gates=(ERRORS, LOGS)), "began without one"),
    ],
)
def test_any_other_change_is_refused_and_changes_nothing(wanted: object, reason: str) -> None:
    before = fold(warm(spec(quick())), tick(T0 + 5.0, errors(T0 + 5.0, 0.0))).fold
    folded = fold(before, changing(T0 + 6.0, policy=wanted))
    assert folded.evaluation.answer is not None
    assert not folded.evaluation.answer.accepted
    assert reason in folded.evaluation.answer.reason
    assert (folded.fold.context, folded.fold.gates) == (before.context, before.gates)
    assert folded.fold.state == replace(before.state, seq=before.state.seq + 1, now=T0 + 6.0)


def test_gates_are_not_changed_while_a_weight_is_on_its_way() -> None:
    first = begun(spec(quick())).fold
    folded = fold(first, changing(T0 + 1.0, policy=quick(gates=(LATENCY,))))
    assert folded.evaluation.answer is not None
    assert not folded.evaluation.answer.accepted
    assert folded.fold.context == first.context


# Records.


def test_the_whole_state_is_on_record_often_enough_and_whenever_a_person_acted() -> None:
    first, inputs = history(3, ticks=90)
    for each in run(first, inputs):
        is_due = each.evaluation.seq % STATE_EVERY == 0
        by_person = isinstance(each.evaluation.input, CommandInput | RestartInput)
        assert (each.evaluation.fold is not None) == (is_due or by_person or is_over(each.fold))
        if each.evaluation.fold is not None:
            assert each.evaluation.fold == each.fold
    assert begun().evaluation.fold is not None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_no_evaluation_holds_what_its_input_does_not_explain(seed: int) -> None:
    first, inputs = history(seed, ticks=15)
    for each in run(first, inputs):
        if isinstance(each.evaluation.input, TickInput):
            assert len(each.evaluation.scores) == len(FOUR)
            assert each.evaluation.verdict is not None
        else:
            assert (each.evaluation.scores, each.evaluation.verdict) == ((), None)
        kind = each.evaluation.decision.kind if each.evaluation.decision else DecisionKind.HOLD
        assert each.evaluation.kind is kind


def test_a_sample_and_an_input_say_the_same() -> None:
    made = sample(T0 + 5.0)
    fields = {each for each in SignalInput.__struct_fields__ if not each.startswith("half_")}
    assert fields <= set(type(made).__struct_fields__)
