"""Records of a rollout that never was: what the log would hold, written by hand, for readers of the log."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from domain.decision import ActionOutcome, Cause, Decision, DecisionKind, Order, decision_id
from domain.policy import JudgeName, Policy, Strategy
from domain.policy_text import parse_policy
from domain.records import (
    ActionRecord,
    ClockInput,
    Evaluation,
    EvaluationFrame,
    RolloutRecord,
    TickInput,
)
from domain.rollout import KERNEL_VERSION, Phase, RolloutSpec
from domain.verdict import Score, Verdict
from sentra.embedded.demo.policies import Pace, policy_text
from streams.bus import Incoming
from streams.codec import encode
from streams.topics import ACTIONS, EVALUATIONS, ROLLOUTS

ROLLOUT = "demo-test-1"
TARGET = {"rds": "/tmp/routes.json", "admin": "http://127.0.0.1:1", "cluster": "{service}_{version}"}


def quick_policy(strategy: Strategy = Strategy.CANARY) -> Policy:
    """The demo's own, pointed at nothing."""
    return parse_policy(policy_text(Pace.QUICK, strategy, TARGET, JudgeName.EVIDENCE))


def score(verdict: Verdict, *, gate: int = 0, quantile_ms: float | None = None) -> Score:
    """What a gate with some traffic says."""
    return Score(
        gate=gate,
        signal="error_rate",
        verdict=verdict,
        reason=f"gate {gate} says so",
        canary_point=0.123,
        stable_point=0.0,
        canary_exposure=1234.0,
        quantile_ms=quantile_ms,
    )


class Tale:
    """Writes down one rollout, topic by topic. Times are plain seconds; ``at`` is when it was folded."""

    def __init__(self, rollout_id: str = ROLLOUT) -> None:
        self.rollout_id = rollout_id
        self.evaluations: list[Incoming] = []
        self.actions: list[Incoming] = []
        self.states: list[Incoming] = []
        self._seqs = count(1)
        self._steps = 0

    def records(self) -> list[Incoming]:
        """Everything, topic after topic."""
        return [*self.evaluations, *self.actions, *self.states]

    def order(
        self,
        order: Order,
        at: float,
        *,
        step: int = 0,
        weight_bp: int = 0,
        kind: DecisionKind = DecisionKind.ADVANCE,
        cause: Cause = Cause.PASSED,
        phase: Phase = Phase.SHIFTING,
        verdict: Verdict | None = Verdict.PASS,
        reason: str = "",
    ) -> Decision:
        """A decision with its evaluation."""
        seq = next(self._seqs)
        decision = Decision(
            decision_id=decision_id(self.rollout_id, seq),
            rollout_id=self.rollout_id,
            seq=seq,
            kind=kind,
            cause=cause,
            reason=reason or f"because of {cause.value}",
            order=order,
            weight_bp=weight_bp,
            generation=seq,
            step_index=step,
            at=at,
        )
        self._evaluate(seq, at, phase, step, verdict, decision)
        return decision

    def report(
        self,
        decision: Decision,
        at: float,
        outcome: ActionOutcome = ActionOutcome.VERIFIED,
        *,
        seconds: float = 0.1,
        observed_bp: int | None = None,
    ) -> None:
        """What the actuator says of ``decision``, ``seconds`` after it took it up."""
        is_verified = outcome is ActionOutcome.VERIFIED
        record = ActionRecord(
            rollout_id=self.rollout_id,
            decision_id=decision.decision_id,
            generation=decision.generation,
            outcome=outcome,
            at=at,
            observed_bp=decision.weight_bp if is_verified and observed_bp is None else observed_bp,
            wanted_bp=decision.weight_bp,
            seconds=seconds,
        )
        self.actions.append(_incoming(ACTIONS.name, len(self.actions), encode(record)))

    def tick(self, at: float, verdict: Verdict, *, step: int = 0, phase: Phase = Phase.ANALYSING) -> None:
        """A judged tick without a decision."""
        self._evaluate(next(self._seqs), at, phase, step, verdict, None)

    def end(self, at: float, phase: Phase, *, step: int = 0) -> None:
        """The evaluation that ended it, and the public state."""
        self._evaluate(next(self._seqs), at, phase, step, None, None)
        self.state(phase, seq=len(self.evaluations), at=at)

    def state(self, phase: Phase, *, seq: int, at: float = 0.0) -> None:
        """A public state."""
        policy = quick_policy()
        spec = RolloutSpec(
            rollout_id=self.rollout_id,
            service="demo",
            environment="local",
            stable="v1",
            canary="v2",
            policy=policy,
            sources=(),
        )
        record = RolloutRecord(
            spec=spec,
            phase=phase,
            seq=seq,
            at=at,
            step_index=1,
            ordered_bp=2000,
            verified_bp=2000,
            generation=2,
            verdict=None,
            passes=1,
            pause_causes=("no_data",) if phase is Phase.PAUSED else (),
            reason="a reason",
            waits_for="something",
            eta_s=None,
            started_at=0.0,
        )
        self.states.append(_incoming(ROLLOUTS.name, len(self.states), encode(record)))

    def _evaluate(
        self,
        seq: int,
        at: float,
        phase: Phase,
        step: int,
        verdict: Verdict | None,
        decision: Decision | None,
    ) -> None:
        given = ClockInput(now=at) if verdict is None else TickInput(start=at - 1, end=at, now=at)
        evaluation = Evaluation(
            rollout_id=self.rollout_id,
            seq=seq,
            input=given,
            context="c",
            kernel_version=KERNEL_VERSION,
            phase=phase,
            step_index=step,
            scores=() if verdict is None else (score(verdict),),
            verdict=verdict,
            decision=decision,
        )
        frame = EvaluationFrame(
            partition=0,
            owner="me",
            owner_epoch=1,
            broker_epoch="b",
            published_at=at,
            evaluations=(evaluation,),
            resume={},
        )
        self.evaluations.append(_incoming(EVALUATIONS.name, len(self.evaluations), encode(frame)))


def promoted() -> Tale:
    """Two steps, both passed: 50 % from 10.2 to 20.3, then 100 % until the end at 30.5."""
    tale = Tale()
    ready = tale.order(Order.PREPARE, 9.0, phase=Phase.STARTING, verdict=None)
    tale.report(ready, 9.1)
    first = tale.order(Order.SHIFT, 10.0, step=0, weight_bp=5000, verdict=None)
    tale.report(first, 10.05, ActionOutcome.SENT, seconds=0.02)
    tale.report(first, 10.2, seconds=0.17)
    tale.tick(12.0, Verdict.INCONCLUSIVE, phase=Phase.WARMING)
    tale.tick(15.0, Verdict.PASS)
    second = tale.order(Order.SHIFT, 20.0, step=1, weight_bp=10_000)
    tale.report(second, 20.3, seconds=0.25)
    tale.tick(22.0, Verdict.INCONCLUSIVE, step=1, phase=Phase.WARMING)
    tale.tick(25.0, Verdict.PASS, step=1)
    last = tale.order(Order.FINALISE, 30.0, step=1, weight_bp=10_000, phase=Phase.FINALISING)
    tale.report(last, 30.4)
    tale.end(30.5, Phase.PROMOTED, step=1)
    return tale


def rolled_back() -> Tale:
    """In force at 10.2, a failing tick at 15 pauses, a severe one at 17 rolls back; in force at 17.6."""
    tale = Tale()
    first = tale.order(Order.SHIFT, 10.0, step=0, weight_bp=5000, verdict=None)
    tale.report(first, 10.2)
    tale.order(
        Order.NONE,
        15.0,
        kind=DecisionKind.PAUSE,
        cause=Cause.FAIL,
        phase=Phase.PAUSED,
        verdict=Verdict.FAIL,
    )
    down = tale.order(
        Order.RESTORE,
        17.0,
        kind=DecisionKind.ROLL_BACK,
        cause=Cause.SEVERE,
        phase=Phase.ROLLING_BACK,
        verdict=Verdict.SEVERE,
    )
    tale.report(down, 17.6, seconds=0.5)
    tale.end(17.7, Phase.ROLLED_BACK)
    return tale


def interleaved(tale: Tale, picks: Sequence[int]) -> list[Incoming]:
    """The tale as a reader of several partitions may see it: each topic in order, among them any order."""
    waiting = [list(tale.evaluations), list(tale.actions), list(tale.states)]
    turns = [*picks, *range(3 * len(tale.records()))]
    return [topic.pop(0) for pick in turns if (topic := waiting[pick % 3])]


def _incoming(topic: str, offset: int, value: bytes) -> Incoming:
    return Incoming(topic=topic, partition=0, offset=offset, key=None, value=value, headers={}, timestamp=0.0)
