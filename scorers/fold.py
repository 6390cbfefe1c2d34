"""The fold: one input in, one evaluation and the next state out. Live operation and replays run exactly this.

``RolloutFold`` is everything a rollout has led to; an ``Evaluation`` is what one input led to. Folding the
inputs of stored evaluations again gives the same evaluations, bit for bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from domain.decision import ActionOutcome, Answer, CommandKind, DecisionKind
from domain.errors import IllegalTransition, PolicyError, RecordError
from domain.policy import JudgeName, Policy, check
from domain.records import (
    ActionInput,
    ClockInput,
    Command,
    CommandInput,
    Evaluation,
    Input,
    RestartInput,
    SignalInput,
    TickInput,
)
from domain.rollout import (
    GateState,
    Phase,
    RolloutFold,
    RolloutState,
    context_of,
    with_gates,
)
from domain.signal import REQUESTS, Arm, Channel
from domain.verdict import Score, Verdict, combine
from scorers.decision_machine import Conclusion, decide, window_since
from scorers.draft import WARMUP_SLACK_S
from scorers.events import OF_COMMAND, OF_OUTCOME, OF_VERDICT, Event, Happening, TickFacts
from scorers.gate_row import GateRow, Moment
from scorers.judge import judge_named
from scorers.quantile import estimate
from scorers.window import Key, index, is_usable, see

STATE_EVERY = 60
"""Every so many inputs an evaluation carries the whole state, so that nothing is folded from the start. A
gate's evidence is up to 25 kB, and folding sixty inputs again takes ten milliseconds."""
AGE_TICKS = 2
"""A gate's numbers may be as old as its source's class may take, and this many ticks."""
WEIGHED_PHASES = frozenset({Phase.WARMING, Phase.ANALYSING, Phase.PAUSED, Phase.BAKING})
"""Phases in which a weight is in force and no other is ordered."""
TIMED_ROWS = frozenset(
    {"starting", "shifting", "paused_fail", "paused_data", "paused_person", "finalising", "rolling_back"}
)
"""Rows in which time alone may change something."""


@dataclass(frozen=True, slots=True)
class Folded:
    """One input's result."""

    fold: RolloutFold
    evaluation: Evaluation


def begin(command: Command, now: float) -> Folded:
    """Fold a start command: the first input of a rollout. Raises :class:`RecordError` without a spec."""
    spec = command.spec
    if command.kind is not CommandKind.START or spec is None:
        raise RecordError(f"rollout {command.rollout_id} must begin with a start command that has a spec")
    check(spec.policy)
    context = context_of(spec)
    empty = RolloutFold(
        spec=spec,
        context=context,
        state=RolloutState(rollout_id=spec.rollout_id),
        gates=_empty_gates(spec.policy),
    )
    return fold(empty, CommandInput(now=now, command=command))


def fold(before: RolloutFold, given: Input) -> Folded:
    """Fold any input but a tick's batch; ticks may be folded here one by one as well."""
    if isinstance(given, TickInput):
        return fold_ticks([before], [given])[0]
    if isinstance(given, CommandInput) and given.command.kind is CommandKind.CHANGE_POLICY:
        return _change_policy(before, given)
    return _finish(before, given, decide(before.state, before.context, _happening(given)))


def fold_clock(before: RolloutFold, now: float) -> Folded | None:
    """Fold the passing of time; ``None`` when it changes nothing, and then it was not folded at all."""
    if before.state.row not in TIMED_ROWS:
        return None
    folded = fold(before, ClockInput(now=now))
    state = replace(folded.fold.state, now=before.state.now, seq=before.state.seq)
    if state == before.state and not folded.evaluation.incidents:
        return None
    return folded


def fold_ticks(befores: Sequence[RolloutFold], ticks: Sequence[TickInput]) -> list[Folded]:
    """Fold one tick for each of many rollouts; gates are judged together, per judge."""
    rows = [rows_of(before, tick) for before, tick in zip(befores, ticks, strict=True)]
    answers = _judge(befores, rows)
    return [
        _fold_tick(before, tick, answer) for before, tick, answer in zip(befores, ticks, answers, strict=True)
    ]


def retrace(before: RolloutFold | None, stored: Evaluation) -> RolloutFold:
    """Where a rollout stands after a stored evaluation, whose scores are taken as they are.

    Unlike a replay it asks no judge: it goes the way that the rollout went, whatever judges today, and gates
    remember nothing of such a tick. Raises :class:`RecordError` when it cannot be told from where to go on.
    """
    if stored.fold is not None:
        return stored.fold
    if before is None:
        raise RecordError(f"seq {stored.seq} of {stored.rollout_id} is not where the rollout begins")
    if isinstance(stored.input, TickInput):
        answers = list(zip(before.gates, stored.scores, strict=True))
        return _fold_tick(before, stored.input, answers).fold
    return fold(before, stored.input).fold


# Ticks.

_Answers = list[tuple[GateState, Score]]


def _judge(befores: Sequence[RolloutFold], rows: Sequence[list[GateRow]]) -> list[_Answers]:
    """Every rollout's answers, asking each judge once about all of its gates."""
    by_judge: dict[JudgeName, list[int]] = defaultdict(list)
    for position, before in enumerate(befores):
        by_judge[before.context.policy.judge].append(position)
    answers: list[_Answers] = [[] for _ in befores]
    for name, positions in by_judge.items():
        judged = judge_named(name)([rows[position] for position in positions])
        for position, answer in zip(positions, judged, strict=True):
            answers[position] = answer
    return answers


def rows_of(before: RolloutFold, tick: TickInput) -> list[GateRow]:
    """What the judge is asked about one tick of a rollout: a row per gate, in the policy's order."""
    inputs = index(tick.signals)
    policy = before.context.policy
    since = window_since(before.state, tick.start)
    moment = _moment(before.state, tick)
    lateness = [(source.channel, source.freshness.lateness_s) for source in before.context.sources]
    rows = []
    for position, (gate, state) in enumerate(zip(policy.gates, before.gates, strict=True)):
        kind = gate.kind
        per_request = kind.per_request and bool(policy.telemetry.metrics)
        of_source = [seconds for channel, seconds in lateness if channel is kind.channel]
        max_age_s = max(of_source or [before.context.lateness_s]) + AGE_TICKS * policy.interval_s
        newest = see(gate, inputs, tick.end, per_request=per_request, max_age_s=max_age_s)
        canary, stable = (
            _measured(inputs, gate.signal, arm, per_request=per_request, max_age_s=max_age_s)
            for arm in (Arm.CANARY, Arm.STABLE)
        )
        rows.append(
            GateRow(
                index=position,
                gate=gate,
                state=state,
                context=before.context,
                newest=newest,
                problem="" if newest is not None else _problem(before, tick, gate.signal, per_request),
                quantile_ms=_quantile(gate.quantile, inputs.get((gate.signal, Arm.CANARY))),
                since=since,
                moment=moment,
                canary=canary if newest is not None else None,
                stable=stable,
            )
        )
    return rows


def _measured(
    inputs: Mapping[Key, SignalInput], signal: str, arm: Arm, *, per_request: bool, max_age_s: float
) -> SignalInput | None:
    """An arm's own signal; per request it is worth no more than the reading of the requests."""
    seen = inputs.get((signal, arm))
    if not is_usable(seen, max_age_s):
        return None
    if not per_request:
        return seen
    requests = inputs.get((REQUESTS, arm))
    if not is_usable(requests, max_age_s):
        return None
    return replace(seen, quality=seen.quality | requests.quality) if requests.quality else seen


def _moment(state: RolloutState, tick: TickInput) -> Moment:
    is_settled = state.phase in WEIGHED_PHASES and tick.start >= state.step_began
    return Moment(
        start=tick.start,
        end=tick.end,
        step=state.step_index,
        is_settled=is_settled,
        step_began=state.step_began,
        warm_at=state.warm_at - WARMUP_SLACK_S,
    )


def _quantile(quantile: float | None, canary: SignalInput | None) -> float | None:
    if quantile is None or canary is None:
        return None
    return estimate(quantile, canary.edges, canary.counts, canary.exposure)


def _problem(before: RolloutFold, tick: TickInput, signal: str, per_request: bool) -> str:
    """Why a gate has no data: the source's own words if it said any."""
    channels = {gate.kind.channel for gate in before.context.policy.gates if gate.signal == signal}
    if per_request:
        channels.add(Channel.METRICS)
    for source in before.context.sources:
        if source.channel in channels and source.name in tick.problems:
            return f"no data: {source.name}: {tick.problems[source.name]}"
    for source in before.context.sources:
        if source.channel in channels and source.name in tick.silent:
            return f"no data: {source.name} is silent"
    return "no data: the canary's total is missing or too old"


def _fold_tick(before: RolloutFold, tick: TickInput, answers: _Answers) -> Folded:
    scores = tuple(score for _, score in answers)
    verdict = combine(scores)
    happening = Happening(event=OF_VERDICT[verdict], now=tick.now, tick=_facts(before, tick, scores, verdict))
    conclusion = decide(before.state, before.context, happening)
    gates = tuple(state for state, _ in answers)
    return _finish(replace(before, gates=gates), tick, conclusion, scores, verdict)


def _facts(before: RolloutFold, tick: TickInput, scores: tuple[Score, ...], verdict: Verdict) -> TickFacts:
    to_blame = [score for score in scores if score.verdict is verdict]
    failing = [score for score in scores if score.verdict in (Verdict.FAIL, Verdict.SEVERE)]
    canary_n, stable_n = _traffic(tick.signals, before.context.policy)
    return TickFacts(
        start=tick.start,
        end=tick.end,
        verdict=verdict,
        reason=to_blame[0].reason if to_blame else "no gate has data",
        lag_s=tick.now - tick.end - before.context.lateness_s,
        shared=bool(failing) and all(score.shared for score in failing),
        point_holds=all(score.point_holds for score in scores if score.required),
        canary_n=canary_n,
        stable_n=stable_n,
    )


def _traffic(signals: Sequence[SignalInput], policy: Policy) -> tuple[float | None, float | None]:
    """Measured exposure of both arms, from the first gate's signal that has it."""
    for gate in policy.gates:
        of_gate = {each.arm.value: each.exposure for each in signals if each.signal == gate.signal}
        if Arm.CANARY.value in of_gate and gate.kind.channel is Channel.METRICS:
            return of_gate[Arm.CANARY.value], of_gate.get(Arm.STABLE.value)
    return None, None


# Everything else.


def _happening(given: CommandInput | ActionInput | ClockInput | RestartInput) -> Happening:
    match given:
        case CommandInput():
            event = OF_COMMAND[given.command.kind]
            return Happening(event=event, now=given.now, command=given.command)
        case ActionInput():
            if given.acted.outcome is ActionOutcome.SENT:
                raise IllegalTransition("an order that was merely sent is news for people, not an input")
            return Happening(event=OF_OUTCOME[given.acted.outcome], now=given.now, acted=given.acted)
        case ClockInput():
            return Happening(event=Event.CLOCK, now=given.now)
        case RestartInput():
            return Happening(event=Event.RESTART, now=given.now, restart=given)


def _change_policy(before: RolloutFold, given: CommandInput) -> Folded:
    """New gates for a running rollout: a new context, and statistics that start afresh."""
    conclusion = decide(before.state, before.context, _happening(given))
    problem = _policy_problem(before, given.command.policy)
    accepted = conclusion.answer is not None and conclusion.answer.accepted
    if not accepted or problem:
        return _finish(before, given, _refused(before, given, conclusion, problem))
    assert given.command.policy is not None, "checked by _policy_problem"
    context = with_gates(before.context, given.command.policy.gates)
    changed = replace(before, context=context, gates=_empty_gates(context.policy))
    return _finish(changed, given, conclusion)


def _policy_problem(before: RolloutFold, policy: Policy | None) -> str:
    if policy is None:
        return "change_policy needs the new policy"
    if replace(policy, gates=before.context.policy.gates) != before.context.policy:
        return "only gates can be changed in flight; start a new rollout for anything else"
    known = {source.channel for source in before.context.sources}
    for gate in policy.gates:
        if gate.kind.channel not in known:
            return (
                f"{gate.signal} needs a {gate.kind.channel.value} source, and the rollout began without one"
            )
    try:
        check(policy)
    except PolicyError as exc:
        return str(exc)
    return ""


def _refused(before: RolloutFold, given: CommandInput, conclusion: Conclusion, problem: str) -> Conclusion:
    """The same moment without the change."""
    if not problem:
        return conclusion
    state = replace(before.state, seq=conclusion.state.seq, now=given.now)
    answer = Answer(command_id=given.command.command_id, accepted=False, reason=problem)
    return Conclusion(state=state, answer=answer)


def _finish(
    before: RolloutFold,
    given: Input,
    conclusion: Conclusion,
    scores: tuple[Score, ...] = (),
    verdict: Verdict | None = None,
) -> Folded:
    after = replace(before, state=conclusion.state)
    state = conclusion.state
    evaluation = Evaluation(
        rollout_id=state.rollout_id,
        seq=state.seq,
        input=given,
        context=after.context.digest,
        kernel_version=after.context.kernel_version,
        phase=state.phase,
        step_index=state.step_index,
        scores=scores,
        verdict=verdict,
        decision=conclusion.decision,
        kind=conclusion.decision.kind if conclusion.decision else DecisionKind.HOLD,
        answer=conclusion.answer,
        incidents=conclusion.incidents,
        fold=after if _carries_state(given, state) else None,
    )
    return Folded(after, evaluation)


def _carries_state(given: Input, state: RolloutState) -> bool:
    """Whether this evaluation holds the whole state: the first, every n-th, and those of commands."""
    is_turn = isinstance(given, CommandInput | RestartInput) or state.phase.is_final
    return is_turn or state.seq % STATE_EVERY == 0


def _empty_gates(policy: Policy) -> tuple[GateState, ...]:
    return tuple(GateState() for _ in policy.gates)


def is_over(fold_: RolloutFold) -> bool:
    """Whether nothing can change any more."""
    return fold_.state.phase in (Phase.PROMOTED, Phase.ROLLED_BACK, Phase.ABORTED, Phase.FAILED)
