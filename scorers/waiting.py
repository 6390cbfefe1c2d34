"""What a rollout waits for now, in one sentence, and for how long."""

from __future__ import annotations

from collections.abc import Callable

from domain.rollout import JudgingContext, PauseCause, Phase, RolloutState
from domain.units import bp_text, duration_text
from domain.verdict import Score, Verdict

Wait = tuple[str, float | None]
"""The sentence, and seconds if they can be told."""


def waiting_for(state: RolloutState, context: JudgingContext, scores: tuple[Score, ...] = ()) -> Wait:
    """What has to happen before this rollout does something else.

    ``scores`` are those of the last tick; without them the sentence is less precise.
    """
    return _WAITS[state.phase](state, context, scores)


def _queued(state: RolloutState, context: JudgingContext, scores: tuple[Score, ...]) -> Wait:
    return "its turn", None


def _starting(state: RolloutState, context: JudgingContext, scores: tuple[Score, ...]) -> Wait:
    return "the actuator to check the target", None


def _shifting(state: RolloutState, context: JudgingContext, scores: tuple[Score, ...]) -> Wait:
    return f"{bp_text(state.ordered_bp)} to be verified in force", None


def _warming(state: RolloutState, context: JudgingContext, scores: tuple[Score, ...]) -> Wait:
    left = max(0.0, state.warm_at - state.now)
    return f"the warm-up to end in {duration_text(round(left))}", left


def _analysing(state: RolloutState, context: JudgingContext, scores: tuple[Score, ...]) -> Wait:
    if state.verdict is Verdict.NO_DATA:
        left = max(0.0, context.policy.on_no_data.hold_s - (state.now - state.no_data_since))
        return f"data; pauses in {duration_text(round(left))}", left
    short = [score for score in scores if score.required and score.verdict is Verdict.INCONCLUSIVE]
    if short:
        etas = [score.eta_s for score in short if score.eta_s is not None]
        return short[0].reason, max(etas) if len(etas) == len(short) else None
    return _passes(state, context)


def _passes(state: RolloutState, context: JudgingContext) -> Wait:
    needed = max(0, context.policy.pass_count - state.passes)
    time_left = max(0.0, state.step_began + context.policy.min_step_time_s - state.now)
    eta = max(needed * context.policy.interval_s, time_left)
    if needed:
        return f"pass {state.passes + 1} of {context.policy.pass_count}", eta
    return f"the step's minimum time, {duration_text(round(time_left))} more", eta


def _paused(state: RolloutState, context: JudgingContext, scores: tuple[Score, ...]) -> Wait:
    causes = set(state.pause_causes)
    if PauseCause.FAIL in causes:
        left = max(0.0, state.failing_since + context.policy.pause_timeout_s - state.now)
        text = f"{context.policy.pass_count} passes to resume, or rolls back in {duration_text(round(left))}"
        return text, left
    if PauseCause.APPROVAL in causes:
        return "a person's approval", None
    by_itself = causes <= {PauseCause.NO_DATA, PauseCause.SHARED} and context.policy.auto_resume
    if by_itself:
        return f"{context.policy.pass_count} passes to resume", None
    return "a person to resume, promote or abort it", None


def _baking(state: RolloutState, context: JudgingContext, scores: tuple[Score, ...]) -> Wait:
    left = max(0.0, context.policy.keep_stable_for_s - state.baked_s)
    return f"the bake to end in {duration_text(round(left))}", left


def _finalising(state: RolloutState, context: JudgingContext, scores: tuple[Score, ...]) -> Wait:
    return "the canary to become the new stable", None


def _rolling_back(state: RolloutState, context: JudgingContext, scores: tuple[Score, ...]) -> Wait:
    return "all traffic to be back on stable", None


def _nothing(state: RolloutState, context: JudgingContext, scores: tuple[Score, ...]) -> Wait:
    return "nothing", None


_WAITS: dict[Phase, Callable[[RolloutState, JudgingContext, tuple[Score, ...]], Wait]] = {
    Phase.QUEUED: _queued,
    Phase.STARTING: _starting,
    Phase.SHIFTING: _shifting,
    Phase.WARMING: _warming,
    Phase.ANALYSING: _analysing,
    Phase.PAUSED: _paused,
    Phase.BAKING: _baking,
    Phase.FINALISING: _finalising,
    Phase.ROLLING_BACK: _rolling_back,
    Phase.PROMOTED: _nothing,
    Phase.ROLLED_BACK: _nothing,
    Phase.ABORTED: _nothing,
    Phase.FAILED: _nothing,
}
