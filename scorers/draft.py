"""A transition being written: the building blocks that the decision machine's handlers share.

A ``Draft`` starts from a state and a happening, collects what changes, and is then read once. It lives only
within one call of the machine, so that handlers read like the rules they implement.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from domain.decision import (
    Answer,
    Cause,
    Decision,
    DecisionKind,
    Incident,
    IncidentKind,
    Order,
    decision_id,
)
from domain.policy import Policy
from domain.rollout import JudgingContext, PauseCause, Phase, RolloutState
from domain.units import FULL_BP, bp_text
from domain.verdict import Verdict
from scorers.events import Happening, TickFacts

FRESH_TICKS = 2
"""A tick gives traffic only while it is at most this many intervals behind the clock (rule 4)."""
COMMANDS_KEPT = 16
"""How many command ids are remembered: far more than could be on their way twice at once."""
WARMUP_SLACK_S = 0.05
"""A tick counts as past the warm-up when it starts at most this much before its end: without it every step
would lose a whole tick to the few milliseconds that verifying a weight takes (rule 7)."""


class Draft:
    """One transition under construction."""

    def __init__(self, state: RolloutState, context: JudgingContext, happening: Happening) -> None:
        self.context = context
        self.happening = happening
        self.now = happening.now
        self.seq = state.seq + 1
        if happening.restart is not None:
            self.seq = max(self.seq, happening.restart.seq_floor + 1)
        self.before = state
        self.state = replace(state, seq=self.seq, now=happening.now)
        if happening.command is not None:
            self.set(commands=(*state.commands, happening.command.command_id)[-COMMANDS_KEPT:])
        self.decision: Decision | None = None
        self.answer: Answer | None = None
        self.incidents: list[Incident] = []

    # What happened.

    @property
    def policy(self) -> Policy:
        return self.context.policy

    @property
    def tick(self) -> TickFacts:
        assert self.happening.tick is not None, "only tick events have a tick"
        return self.happening.tick

    @property
    def observed_bp(self) -> int | None:
        return None if self.happening.acted is None else self.happening.acted.observed_bp

    @property
    def is_forced(self) -> bool:
        return self.happening.command is not None and self.happening.command.force

    @property
    def is_fresh(self) -> bool:
        """Whether this tick is recent enough to give traffic."""
        return self.tick.lag_s <= FRESH_TICKS * self.policy.interval_s

    @property
    def is_enough(self) -> bool:
        """Whether enough ticks passed in a row."""
        return self.state.passes >= self.policy.pass_count

    def since(self, moment: float) -> float:
        """Folded seconds since ``moment``."""
        return self.now - moment

    # What changes.

    def set(self, **changes: Any) -> None:
        """Replace fields of the state."""
        self.state = replace(self.state, **changes)

    def decide(
        self,
        kind: DecisionKind,
        cause: Cause,
        reason: str,
        *,
        order: Order = Order.NONE,
        weight_bp: int | None = None,
        override: bool = False,
        unproven: bool = False,
    ) -> None:
        """Take the decision of this transition. One that orders something raises the generation."""
        weight = self.state.ordered_bp if weight_bp is None else weight_bp
        ordering = order is not Order.NONE
        generation = self.state.generation + 1 if ordering else self.state.generation
        self.decision = Decision(
            decision_id=decision_id(self.state.rollout_id, self.seq),
            rollout_id=self.state.rollout_id,
            seq=self.seq,
            kind=kind,
            cause=cause,
            reason=reason,
            order=order,
            weight_bp=weight,
            generation=generation,
            step_index=self.state.step_index,
            at=self.now,
            override=override,
            unproven=unproven,
        )
        self.set(reason=reason, generation=generation, ordered_bp=weight)
        if ordering:
            self.set(in_flight=self.decision, order_since=self.now, redrives=0)

    def incident(self, kind: IncidentKind, detail: str) -> None:
        """Tell whoever wants to be told."""
        self.incidents.append(
            Incident(
                rollout_id=self.state.rollout_id,
                kind=kind,
                at=self.now,
                step_index=self.state.step_index,
                detail=detail,
                seq=self.seq,
            )
        )

    def accept(self, reason: str) -> None:
        """Answer the command: done."""
        self._answer(accepted=True, reason=reason)

    def refuse(self, reason: str) -> None:
        """Answer the command: not in this state. Nothing changes."""
        self._answer(accepted=False, reason=reason)

    def _answer(self, *, accepted: bool, reason: str) -> None:
        command = self.happening.command
        assert command is not None, "only commands are answered"
        self.answer = Answer(command_id=command.command_id, accepted=accepted, reason=reason)

    # Moves that several rows share.

    def shift_to(
        self, step: int, cause: Cause, reason: str, *, override: bool = False, unproven: bool = False
    ) -> None:
        """Order the weight of ``step``."""
        weight = self.policy.weights_bp[step]
        self.set(
            phase=Phase.SHIFTING,
            step_index=step,
            passes=0,
            pause_causes=(),
            no_data_ticks=0,
            idle_ticks=0,
            unproven=self.state.unproven or unproven,
        )
        text = f"{reason}; step {step + 1} of {len(self.policy.weights_bp)}, weight {bp_text(weight)}"
        self.decide(
            DecisionKind.ADVANCE,
            cause,
            text,
            order=Order.SHIFT,
            weight_bp=weight,
            override=override,
            unproven=unproven,
        )

    def may_regain(self, seen_bp: int | None) -> bool:
        """Whether ordering the same weight again is allowed: never to win traffic back after a failure."""
        return not self.state.is_tainted or (seen_bp is not None and seen_bp >= self.state.ordered_bp)

    def redrive(self, cause: Cause, reason: str) -> None:
        """Give the order in flight (or the weight that should be in force) once more, as a new generation."""
        lost = self.state.in_flight
        order, kind = (lost.order, lost.kind) if lost else (Order.SHIFT, DecisionKind.RESUME)
        redrives = self.state.redrives + 1
        self.decide(kind, cause, reason, order=order)
        self.set(redrives=redrives)

    def finish_step(
        self, cause: Cause, reason: str, *, override: bool = False, unproven: bool = False
    ) -> None:
        """The step is done: on to the next weight, to a person's approval, to the bake, or to the end."""
        upcoming = self.state.step_index + 1
        if upcoming > self.policy.last_step:
            self.bake_or_finalise(cause, reason, override=override, unproven=unproven)
        elif upcoming + 1 in self.policy.approvals and not override:
            self.set(unproven=self.state.unproven or unproven)
            self.pause(PauseCause.APPROVAL, f"{reason}; step {upcoming + 1} needs a person's approval")
        else:
            self.shift_to(upcoming, cause, reason, override=override, unproven=unproven)

    def bake_or_finalise(
        self, cause: Cause, reason: str, *, override: bool = False, unproven: bool = False
    ) -> None:
        """All traffic is on the canary and good: keep stable warm for a while, if the policy says so."""
        self.set(unproven=self.state.unproven or unproven)
        if self.policy.keep_stable_for_s <= 0:
            self.finalise(cause, reason, override=override, unproven=unproven)
            return
        self.set(phase=Phase.BAKING, baked_s=0.0, passes=0, pause_causes=())
        text = f"{reason}; baking with stable kept warm"
        self.decide(DecisionKind.ADVANCE, cause, text, override=override, unproven=unproven)

    def finalise(self, cause: Cause, reason: str, *, override: bool = False, unproven: bool = False) -> None:
        """Make the canary the new stable."""
        self.set(phase=Phase.FINALISING, pause_causes=())
        self.decide(
            DecisionKind.PROMOTE,
            cause,
            reason,
            order=Order.FINALISE,
            weight_bp=FULL_BP,
            override=override,
            unproven=unproven,
        )

    def go_down(self, cause: Cause, reason: str) -> None:
        """All traffic back to stable. The first cause names the outcome."""
        first = self.state.down_cause or cause
        self.set(phase=Phase.ROLLING_BACK, down_cause=first, down_since=self.now, pause_causes=(), passes=0)
        self.decide(
            DecisionKind.ROLL_BACK,
            cause,
            reason,
            order=Order.RESTORE,
            weight_bp=0,
            override=cause is Cause.ABORT,
        )
        self.incident(IncidentKind.ROLLED_BACK, reason)

    def pause(self, cause: PauseCause, reason: str) -> None:
        """Keep traffic where it is. A rollout that is paused already gets a further cause."""
        was = self.state.phase
        causes = tuple(dict.fromkeys((*self.state.pause_causes, cause)))
        self.set(phase=Phase.PAUSED, pause_causes=causes, passes=0)
        if was is not Phase.PAUSED:
            self.set(paused_at=self.now, paused_alerted=False, resume_to=RESUMES_TO[was])
        if cause is PauseCause.FAIL:
            self.set(failing_since=self.now)
        self.decide(DecisionKind.PAUSE, Cause(cause.value), reason)
        self.incident(IncidentKind.PAUSED, reason)

    def resume(self, cause: Cause, reason: str) -> None:
        """Go on where the pause began; traffic that is not where it should be is brought there first."""
        misplaced = {PauseCause.DRIFT, PauseCause.ACTUATION} & set(self.state.pause_causes)
        target = self.state.resume_to
        if self.state.phase is Phase.PAUSED and target is Phase.SHIFTING and not misplaced:
            self.shift_to(self.state.step_index, cause, reason)
            return
        self.set(pause_causes=(), passes=0, no_data_ticks=0)
        if misplaced:
            self.set(phase=Phase.SHIFTING)
            self.redrive(cause, f"{reason}; bringing {bp_text(self.state.ordered_bp)} in force again")
            return
        still_warming = target is Phase.ANALYSING and self.now < self.state.warm_at
        self.set(phase=Phase.WARMING if still_warming else target)
        self.decide(DecisionKind.RESUME, cause, reason)

    def stand_still(self) -> None:
        """No timer ran while Sentra was down: every moment that one counts from moves on (rule 8)."""
        gap = max(0.0, self.now - self.before.now)
        self.set(**{name: getattr(self.state, name) + gap for name in _ANCHORS if getattr(self.state, name)})

    # Counting.

    def count_pass(self) -> None:
        """One more passing tick, if it is recent enough to count."""
        if self.is_fresh:
            self.set(passes=self.state.passes + 1)

    def note_tick(self) -> None:
        """What every tick changes, whatever the phase: the last verdict, gaps, silence, an idle canary."""
        tick, state = self.tick, self.state
        gap = tick.start - state.tick_end > FRESH_TICKS * self.policy.interval_s + WARMUP_SLACK_S
        self._note_onset(tick)
        self.set(
            verdict=tick.verdict,
            is_tainted=_is_tainted(state.is_tainted, tick.verdict),
            tick_end=max(tick.end, state.tick_end),
            passes=0 if gap and state.tick_end else state.passes,
        )
        self._note_silence(tick)
        self._note_idle(tick)

    def _note_onset(self, tick: TickFacts) -> None:
        """An incident when a bad verdict begins, in the phases in which it means something."""
        phases = ONSETS.get(tick.verdict, frozenset())
        if self.state.phase not in phases or tick.verdict is self.state.verdict:
            return
        too_late = self.state.phase is Phase.FINALISING
        detail = f"while finalising, too late to roll back: {tick.reason}" if too_late else tick.reason
        self.incident(IncidentKind(tick.verdict.value.lower()), detail)

    def _note_silence(self, tick: TickFacts) -> None:
        """NO_DATA freezes the pass counter for two ticks, then clears it."""
        if tick.verdict is not Verdict.NO_DATA:
            self.set(no_data_ticks=0)
            return
        silent = self.state.no_data_ticks + 1
        self.set(
            no_data_ticks=silent,
            no_data_since=self.now if silent == 1 else self.state.no_data_since,
            passes=self.state.passes if silent <= FRESH_TICKS else 0,
        )

    def _note_idle(self, tick: TickFacts) -> None:
        """A canary without its share of traffic is no missing data, but somebody should look (rule 9)."""
        idle = tick.canary_n == 0 and bool(tick.stable_n) and self.state.verified_bp > 0
        self.set(idle_ticks=self.state.idle_ticks + 1 if idle else 0)
        if self.state.idle_ticks == IDLE_TICKS:
            detail = (
                f"the canary gets no traffic at weight {bp_text(self.state.verified_bp)} "
                f"while stable has {tick.stable_n:g} requests a tick"
            )
            self.incident(IncidentKind.SPLIT, detail)


def _is_tainted(before: bool, verdict: Verdict) -> bool:
    if verdict in (Verdict.FAIL, Verdict.SEVERE):
        return True
    return before and verdict is not Verdict.PASS


IDLE_TICKS = 3
"""Ticks without canary traffic before it is an incident (rule 9)."""

_ANCHORS = (
    "started_at",
    "order_since",
    "step_began",
    "warm_at",
    "no_data_since",
    "paused_at",
    "failing_since",
    "down_since",
)
"""The moments that timers count from."""

_JUDGED = frozenset({Phase.ANALYSING, Phase.PAUSED, Phase.BAKING})
_TRAFFIC = _JUDGED | {Phase.SHIFTING, Phase.WARMING, Phase.FINALISING}
ONSETS = {Verdict.NO_DATA: _JUDGED, Verdict.FAIL: _TRAFFIC, Verdict.SEVERE: _TRAFFIC}
"""Where a verdict's onset is an incident: silence before traffic moves is no news, nor is failing on the way
down."""

RESUMES_TO = {
    Phase.STARTING: Phase.SHIFTING,
    Phase.SHIFTING: Phase.ANALYSING,
    Phase.WARMING: Phase.ANALYSING,
    Phase.ANALYSING: Phase.ANALYSING,
    Phase.BAKING: Phase.BAKING,
}
"""Where a pause leads back to, by the phase it began in."""
