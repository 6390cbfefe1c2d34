"""What the judge knows of a rollout at this moment, folded again from its stored evaluations.

The public state is published only when it changes, so its scores and times are older. It serves where there
is nothing to fold: before the first evaluation, after pruning, or when another release folded it.
"""

from __future__ import annotations

from dataclasses import dataclass

from domain.errors import SentraError
from domain.policy import Policy
from domain.records import Evaluation
from domain.rollout import PauseCause, Phase, RolloutFold
from domain.verdict import Score
from scorers.replay import refold
from scorers.waiting import waiting_for
from store.queries import StoredRollout

BY_PERSON = frozenset(
    (
        PauseCause.OPERATOR,
        PauseCause.APPROVAL,
        PauseCause.INCONCLUSIVE,
        PauseCause.DRIFT,
        PauseCause.ACTUATION,
    )
)
"""Pauses that only a person ends (decision machine, rule 5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """A rollout's state for people. All of it is as of ``at``, the folded time."""

    policy: Policy
    """The one in force: gates can be changed in flight."""
    pause_causes: tuple[PauseCause, ...]
    waits_for: str
    eta_s: float | None
    """Seconds until then, counted from ``at``."""
    at: float
    scores: tuple[Score, ...]

    @property
    def waits_for_person(self) -> bool:
        """Whether it is paused and nothing but a person makes it go on.

        A failing rollout does not wait for one: it resumes or, after ``pause_timeout``, rolls back by itself.
        """
        causes = set(self.pause_causes)
        if not causes or PauseCause.FAIL in causes:
            return False
        return bool(causes & BY_PERSON) or not self.policy.auto_resume


class Folded:
    """A rollout's fold, kept up to date with the evaluations that are stored."""

    def __init__(self, fold: RolloutFold | None) -> None:
        self._fold = fold
        self._scores: tuple[Score, ...] = ()

    @property
    def seq(self) -> int:
        return 0 if self._fold is None else self._fold.state.seq

    def take(self, evaluation: Evaluation) -> None:
        """Fold what one more evaluation folded. A release that folds otherwise leaves the public state."""
        self._scores = evaluation.scores or self._scores
        if evaluation.fold is not None:
            self._fold = evaluation.fold
        elif self._fold is not None and evaluation.seq > self._fold.state.seq:
            try:
                self._fold = refold(self._fold, evaluation).fold
            except SentraError:
                self._fold = None

    def present(self, stored: StoredRollout) -> Present:
        """What it knows, or else what was last published."""
        if self._fold is None:
            return _published(stored)
        state, context = self._fold.state, self._fold.context
        waits_for, eta_s = waiting_for(state, context, self._scores)
        return Present(
            policy=context.policy,
            pause_causes=state.pause_causes if state.phase is Phase.PAUSED else (),
            waits_for=waits_for,
            eta_s=eta_s,
            at=state.now,
            scores=self._scores or _published(stored).scores,
        )


def _published(stored: StoredRollout) -> Present:
    policy, public = stored.spec.policy, stored.public
    if public is None:
        waits = "the judge to take it up" if stored.is_active else "nothing"
        return Present(
            policy=policy, pause_causes=(), waits_for=waits, eta_s=None, at=stored.created_at, scores=()
        )
    causes = public.pause_causes if public.phase is Phase.PAUSED else ()
    return Present(
        policy=policy,
        pause_causes=tuple(map(PauseCause, causes)),
        waits_for=public.waits_for,
        eta_s=public.eta_s,
        at=public.at,
        scores=public.scores,
    )
