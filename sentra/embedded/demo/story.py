"""What happened to one rollout, read off the log as any other consumer would read it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from domain.decision import ActionOutcome, Cause, Decision, DecisionKind, Order
from domain.records import ActionRecord, Evaluation, EvaluationFrame, RolloutRecord
from domain.rollout import Phase
from domain.units import bp_text
from domain.verdict import Score, Verdict
from streams.bus import Incoming
from streams.codec import decode
from streams.topics import ACTIONS, EVALUATIONS, ROLLOUTS

TOPICS = (EVALUATIONS.name, ACTIONS.name, ROLLOUTS.name)
_BAD = {Cause.FAIL, Cause.SEVERE, Cause.NO_DATA, Cause.SHARED}
_ADVERSE = {DecisionKind.PAUSE, DecisionKind.ROLL_BACK}
_MOVING = {Order.SHIFT, Order.RESTORE, Order.FINALISE}


@dataclass(frozen=True, slots=True)
class Shift:
    """From the moment an actuator took up an order that moves traffic to the last it said of it."""

    began: float
    ended: float


@dataclass(slots=True)
class StepStory:
    """One step: when its weight was in force, until when, and how it was judged."""

    index: int
    weight_bp: int
    began: float
    ended: float | None = None
    verdict: Verdict | None = None


@dataclass(slots=True)
class Story:
    """Everything seen so far of ``rollout_id``."""

    rollout_id: str
    public: RolloutRecord | None = None
    scores: tuple[Score, ...] = ()
    verdict: Verdict | None = None
    evaluations: int = 0
    ticks: int = 0
    passes: int = 0
    """Passing ticks in a row within the present step."""
    decisions: list[Decision] = field(default_factory=list)
    verified: list[ActionRecord] = field(default_factory=list)
    steps: list[StepStory] = field(default_factory=list)
    events: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=200))
    ended_at: float | None = None
    _seen: set[int] = field(default_factory=set)
    _reported: set[tuple[str, str]] = field(default_factory=set)
    _early: dict[str, ActionRecord] = field(default_factory=dict)
    """Reports read before the decision they answer: topics have no common order."""
    _carried_out: dict[str, Shift] = field(default_factory=dict)
    """By decision."""
    _judged: int = 0
    """The step that ticks are about."""
    _verdicts: dict[int, Verdict] = field(default_factory=dict)
    """The last one of each step: its ticks may be read before its weight is known to be in force."""

    @property
    def phase(self) -> Phase | None:
        return self.public.phase if self.public else None

    @property
    def is_over(self) -> bool:
        """Whether the rollout ended and the report that ended it was read, too."""
        if self.phase is None or not self.phase.is_final or self.ended_at is None:
            return False
        orders = [each.decision_id for each in self.decisions if each.order is not Order.NONE]
        told = {each.decision_id for each in self.verified}
        return self.phase is Phase.FAILED or not orders or orders[-1] in told

    def read(self, record: Incoming) -> None:
        """Take in one record of :data:`TOPICS`."""
        if record.topic == EVALUATIONS.name:
            for evaluation in decode(EvaluationFrame, record.value).evaluations:
                self._evaluation(evaluation)
        elif record.topic == ACTIONS.name:
            self._action(decode(ActionRecord, record.value))
        else:
            self._state(decode(RolloutRecord, record.value))

    def is_in_force(self, step: int) -> bool:
        """Whether a step's weight was seen in force, now or earlier."""
        return any(each.index >= step for each in self.steps)

    def first_adverse_after(self, moment: float) -> Decision | None:
        """The first pause or roll-back by evidence or silence that was decided after ``moment``."""
        for decision in self.decisions:
            if decision.at >= moment and decision.kind in _ADVERSE and decision.cause in _BAD:
                return decision
        return None

    def delays(self) -> list[float]:
        """Seconds from each decision that moves traffic to its effect."""
        decided = {each.decision_id: each for each in self.decisions}
        return [
            action.at - decided[action.decision_id].at
            for action in self.verified
            if action.decision_id in decided
            and decided[action.decision_id].order in (Order.SHIFT, Order.RESTORE)
        ]

    def shifts(self) -> list[Shift]:
        """When traffic was moved, or tried to be."""
        moving = [each.decision_id for each in self.decisions if each.order in _MOVING]
        return [self._carried_out[each] for each in moving if each in self._carried_out]

    def _evaluation(self, evaluation: Evaluation) -> None:
        if evaluation.rollout_id != self.rollout_id or evaluation.seq in self._seen:
            return
        self._seen.add(evaluation.seq)
        self.evaluations += 1
        if evaluation.verdict is not None:
            self._tick(evaluation, evaluation.verdict)
        if evaluation.decision is not None:
            self._decision(evaluation.decision)
        if evaluation.phase.is_final and self.ended_at is None:
            self.ended_at = evaluation.input.now
            self._close_step(evaluation.input.now)
            self.events.append((evaluation.input.now, f"{evaluation.phase.value.replace('_', ' ')}"))

    def _tick(self, evaluation: Evaluation, verdict: Verdict) -> None:
        self.ticks += 1
        self.scores = evaluation.scores
        is_counting = evaluation.phase in (Phase.ANALYSING, Phase.BAKING)
        self.passes = self.passes + 1 if verdict is Verdict.PASS and is_counting else 0
        # Before the warm-up is over only bad news is news.
        is_news = is_counting or evaluation.phase is Phase.PAUSED or verdict.gravity >= Verdict.FAIL.gravity
        if verdict is not self.verdict and is_news:
            worst = next((score for score in evaluation.scores if score.verdict is verdict), None)
            self.events.append((evaluation.input.now, f"{verdict.value}: {worst.reason if worst else ''}"))
        self.verdict = verdict
        self._note_verdict(evaluation, verdict)

    def _note_verdict(self, evaluation: Evaluation, verdict: Verdict) -> None:
        # While a shift is under way, the step it leads to is not judged yet.
        if evaluation.phase is not Phase.SHIFTING:
            self._judged = evaluation.step_index
        self._verdicts[self._judged] = verdict
        for step in self.steps:
            if step.index == self._judged:
                step.verdict = verdict

    def _decision(self, decision: Decision) -> None:
        self.decisions.append(decision)
        self.events.append(
            (decision.at, f"{self._verdict_behind(decision)}{decision.kind.value}: {decision.reason}")
        )
        early = self._early.pop(decision.decision_id, None)
        if early is not None:
            self._in_force(decision, early)

    def _verdict_behind(self, decision: Decision) -> str:
        """Take back the verdict's line that just said the same, for both to be one: ``FAIL → PAUSE``."""
        if self.verdict is None or not self.events:
            return ""
        if self.events[-1] != (decision.at, f"{self.verdict.value}: {decision.reason}"):
            return ""
        self.events.pop()
        return f"{self.verdict.value} → "

    def _action(self, action: ActionRecord) -> None:
        key = (action.decision_id, action.outcome.value)
        if action.rollout_id != self.rollout_id or key in self._reported:
            return
        self._reported.add(key)
        self._note_shift(action)
        if action.outcome is ActionOutcome.VERIFIED:
            self.verified.append(action)
            order = next((each for each in self.decisions if each.decision_id == action.decision_id), None)
            if order is None:
                self._early[action.decision_id] = action
            else:
                self._in_force(order, action)
        elif action.outcome is not ActionOutcome.SENT:
            self.events.append((action.at, f"actuator: {action.outcome.value} {action.detail}"))

    def _note_shift(self, action: ActionRecord) -> None:
        began, ended = action.at - action.seconds, action.at
        if (known := self._carried_out.get(action.decision_id)) is not None:
            began, ended = min(began, known.began), max(ended, known.ended)
        self._carried_out[action.decision_id] = Shift(began, ended)

    def _in_force(self, order: Decision, action: ActionRecord) -> None:
        weight = action.observed_bp if action.observed_bp is not None else action.wanted_bp
        if order.order is not Order.PREPARE:
            self.events.append((action.at, f"in force: {bp_text(weight)}"))
        if order.order is Order.SHIFT:
            self._begin_step(order.step_index, weight, action.at)

    def _begin_step(self, index: int, weight_bp: int, at: float) -> None:
        self.passes = 0
        if self.steps and self.steps[-1].index == index:
            return  # the weight was ordered again, after a restart or a drift
        self._close_step(at)
        step = StepStory(index=index, weight_bp=weight_bp, began=at, ended=self.ended_at)
        step.verdict = self._verdicts.get(index)
        self.steps.append(step)

    def _close_step(self, at: float) -> None:
        if self.steps:
            self.steps[-1].ended = at

    def _state(self, record: RolloutRecord) -> None:
        is_ours = record.spec.rollout_id == self.rollout_id
        if is_ours and (self.public is None or record.seq >= self.public.seq):
            self.public = record
