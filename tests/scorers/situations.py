"""Rollouts in every situation, reached the way real ones are: by folding events into the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from domain.decision import ActionOutcome, CommandKind, Decision
from domain.policy import Gate, JudgeName, NoDataRule, Policy, Telemetry, Traffic, check
from domain.records import Command, RestartInput
from domain.rollout import (
    Acted,
    JudgingContext,
    RolloutSpec,
    RolloutState,
    SourceRef,
    context_of,
)
from domain.signal import Channel
from domain.verdict import Verdict
from scorers.decision_machine import Conclusion, decide
from scorers.events import OF_COMMAND, OF_OUTCOME, OF_VERDICT, Event, Happening, TickFacts

T0 = 1_700_000_000.0
"""When every test begins: a tick boundary of 5, 10 and 20 seconds."""

ERRORS = Gate(signal="error_rate", slo=0.01, severe=0.05, window_s=60.0, min_samples=100, min_events=3)
LATENCY = Gate(
    signal="latency_ms", slo=400.0, severe=2000.0, quantile=0.95, window_s=60.0, min_samples=100, min_events=3
)


def policy(**changes: Any) -> Policy:
    """Three steps (5, 20, 100 %), one gate, pass_count 3, warm-up 30 s, unless said otherwise."""
    plain = Policy(
        service="checkout",
        environment="prod",
        judge=JudgeName.THRESHOLD,
        weights_bp=(500, 2000, 10_000),
        gates=(ERRORS,),
        traffic=Traffic(adapter="memory", target={"route": "checkout"}),
        telemetry=Telemetry(metrics="prom", logs="loki", traces="tempo"),
    )
    return check(replace(plain, **changes))


def spec(rules: Policy | None = None, **changes: Any) -> RolloutSpec:
    """A rollout of ``rules`` with one realtime source of metrics."""
    plain = RolloutSpec(
        rollout_id="r-1",
        service="checkout",
        environment="prod",
        stable="v1",
        canary="v2",
        policy=rules or policy(),
        sources=(SourceRef(name="prom", channel=Channel.METRICS),),
    )
    return replace(plain, **changes)


def start_command(wanted: RolloutSpec) -> Command:
    return Command(
        command_id="start", rollout_id=wanted.rollout_id, kind=CommandKind.START, actor="ann", spec=wanted
    )


class Rollout:
    """A rollout under test: tell it what happens, read what came of it."""

    def __init__(self, **changes: Any) -> None:
        self.context: JudgingContext = context_of(spec(policy(**changes)))
        self.state = RolloutState(rollout_id="r-1")
        self.now = T0
        self.ended = T0
        self.happenings: list[Happening] = []
        self.conclusions: list[Conclusion] = []

    @property
    def interval(self) -> float:
        return self.context.policy.interval_s

    @property
    def decisions(self) -> list[Decision]:
        return [each.decision for each in self.conclusions if each.decision is not None]

    def happen(self, happening: Happening) -> Conclusion:
        conclusion = decide(self.state, self.context, happening)
        self.state = conclusion.state
        self.happenings.append(happening)
        self.conclusions.append(conclusion)
        return conclusion

    def tick(self, verdict: Verdict, *, skipped: int = 0, lag_s: float = 0.0, **facts: Any) -> Conclusion:
        """The next tick, after ``skipped`` ones that never came."""
        start = self.ended + skipped * self.interval
        self.ended = start + self.interval
        self.now = max(self.now, self.ended)
        seen = TickFacts(
            start=start, end=self.ended, verdict=verdict, reason=f"was {verdict.value}", lag_s=lag_s, **facts
        )
        return self.happen(Happening(event=OF_VERDICT[verdict], now=self.now, tick=seen))

    def ticks(self, verdict: Verdict, times: int, **facts: Any) -> Conclusion:
        for _ in range(times - 1):
            self.tick(verdict, **facts)
        return self.tick(verdict, **facts)

    def command(self, kind: CommandKind, *, force: bool = False) -> Conclusion:
        asked = Command(
            command_id=f"c{self.state.seq}", rollout_id="r-1", kind=kind, actor="ann", force=force
        )
        return self.happen(Happening(event=OF_COMMAND[kind], now=self.now, command=asked))

    def report(
        self, outcome: ActionOutcome, *, observed_bp: int | None = None, generation: int | None = None
    ) -> Conclusion:
        """The actuator's word about the newest order, or about ``generation``."""
        of = self.state.generation if generation is None else generation
        acted = Acted(generation=of, outcome=outcome, observed_bp=observed_bp, at=self.now, detail="said so")
        return self.happen(Happening(event=OF_OUTCOME[outcome], now=self.now, acted=acted))

    def verified(self, **facts: Any) -> Conclusion:
        return self.report(ActionOutcome.VERIFIED, **({"observed_bp": self.state.ordered_bp} | facts))

    def not_applied(self, **facts: Any) -> Conclusion:
        return self.report(ActionOutcome.NOT_APPLIED, **facts)

    def drift(self, observed_bp: int | None = 0) -> Conclusion:
        return self.report(ActionOutcome.DRIFT, observed_bp=observed_bp)

    def clock(self, seconds: float) -> Conclusion:
        """Time passes and nothing else."""
        self.wait(seconds)
        return self.happen(Happening(event=Event.CLOCK, now=self.now))

    def wait(self, seconds: float) -> None:
        """The clock moves on; nobody folds anything."""
        self.now += seconds
        self.ended = max(self.ended, self.now // self.interval * self.interval)

    def restart(self, observed_bp: int | None = None, *, generation: int = 0, seq: int = 0) -> Conclusion:
        back = RestartInput(now=self.now, seq_floor=seq, generation_floor=generation, observed_bp=observed_bp)
        return self.happen(Happening(event=Event.RESTART, now=self.now, restart=back))


# Situations. Each builds on the one before it.


def queued(**changes: Any) -> Rollout:
    return Rollout(**changes)


def starting(**changes: Any) -> Rollout:
    rollout = queued(**changes)
    rollout.command(CommandKind.START)
    return rollout


def shifting(**changes: Any) -> Rollout:
    rollout = starting(**changes)
    rollout.verified(observed_bp=0)
    return rollout


def warming(**changes: Any) -> Rollout:
    rollout = shifting(**changes)
    rollout.verified()
    return rollout


def analysing(**changes: Any) -> Rollout:
    """Warm-up is over and one tick was inconclusive: no passes yet, no failure either."""
    rollout = warming(**changes)
    rollout.wait(rollout.context.policy.warmup_s)
    rollout.tick(Verdict.INCONCLUSIVE)
    return rollout


def paused_fail(**changes: Any) -> Rollout:
    rollout = analysing(**changes)
    rollout.tick(Verdict.FAIL)
    return rollout


def paused_no_data(**changes: Any) -> Rollout:
    rollout = analysing(**({"on_no_data": NoDataRule(hold_s=0)} | changes))
    rollout.tick(Verdict.NO_DATA)
    return rollout


def paused_shared(**changes: Any) -> Rollout:
    """Paused while both arms failed; the last tick was inconclusive."""
    rollout = analysing(**changes)
    rollout.tick(Verdict.FAIL, shared=True)
    rollout.tick(Verdict.INCONCLUSIVE)
    return rollout


def paused_inconclusive(**changes: Any) -> Rollout:
    rollout = analysing(**changes)
    rollout.wait(rollout.context.policy.max_step_time_s)
    rollout.tick(Verdict.INCONCLUSIVE)
    return rollout


def paused_operator(**changes: Any) -> Rollout:
    rollout = analysing(**changes)
    rollout.command(CommandKind.PAUSE)
    return rollout


def paused_approval(**changes: Any) -> Rollout:
    rollout = analysing(**({"approvals": (2,), "min_step_time_s": 0.0} | changes))
    rollout.ticks(Verdict.PASS, rollout.context.policy.pass_count)
    return rollout


def paused_drift(**changes: Any) -> Rollout:
    rollout = analysing(**changes)
    rollout.drift(0)
    return rollout


def paused_actuation(**changes: Any) -> Rollout:
    rollout = shifting(**changes)
    rollout.not_applied(observed_bp=0)
    rollout.not_applied(observed_bp=0)
    return rollout


def at_full_weight(**changes: Any) -> Rollout:
    """Analysing the last step."""
    rollout = warming(**({"weights_bp": (10_000,)} | changes))
    rollout.wait(rollout.context.policy.warmup_s)
    rollout.tick(Verdict.INCONCLUSIVE)
    return rollout


def baking(**changes: Any) -> Rollout:
    rollout = at_full_weight(**({"keep_stable_for_s": 60.0, "min_step_time_s": 0.0} | changes))
    rollout.ticks(Verdict.PASS, rollout.context.policy.pass_count)
    return rollout


def finalising(**changes: Any) -> Rollout:
    return baking(**({"keep_stable_for_s": 0.0} | changes))


def rolling_back(**changes: Any) -> Rollout:
    rollout = analysing(**changes)
    rollout.tick(Verdict.SEVERE)
    return rollout


def promoted(**changes: Any) -> Rollout:
    rollout = finalising(**changes)
    rollout.verified()
    return rollout


def rolled_back(**changes: Any) -> Rollout:
    rollout = rolling_back(**changes)
    rollout.verified(observed_bp=0)
    return rollout


def aborted(**changes: Any) -> Rollout:
    rollout = analysing(**changes)
    rollout.command(CommandKind.ABORT)
    rollout.verified(observed_bp=0)
    return rollout


def failed(**changes: Any) -> Rollout:
    rollout = starting(**changes)
    rollout.not_applied()
    return rollout


SITUATIONS: dict[str, Callable[..., Rollout]] = {
    each.__name__: each
    for each in (
        queued,
        starting,
        shifting,
        warming,
        analysing,
        paused_fail,
        paused_no_data,
        paused_shared,
        paused_inconclusive,
        paused_operator,
        paused_approval,
        paused_drift,
        paused_actuation,
        baking,
        finalising,
        rolling_back,
        promoted,
        rolled_back,
        aborted,
        failed,
    )
}
"""Every row of the table, the three pauses by each of their causes."""
