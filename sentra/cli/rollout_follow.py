"""Follows a rollout in the database until it ends: looks again and again, which works with any database."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from domain.decision import Incident
from domain.errors import SentraError, StoreUnavailable
from domain.policy import Policy
from domain.records import Evaluation
from domain.rollout import PauseCause, Phase, RolloutFold
from domain.verdict import Score
from scorers.replay import refold
from scorers.waiting import waiting_for
from sentra.cli.exits import OF_PHASE, Exit
from sentra.cli.rollout_ask import find
from sentra.cli.rollout_events import Event, events_of, last_decision
from store.queries import StoredRollout, StoredStep
from store.repository import Repository

LOOK_S = 0.3
PATIENCE_S = 30.0
"""How long a database that does not answer is borne: the rollout goes on without it being watched."""
LOOK_BACK = 500
"""Records read for what happened before we began to look."""
KEPT_EVENTS = 50

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
class Snapshot:
    """All that is shown of a rollout at one moment."""

    stored: StoredRollout
    now: Present
    steps: tuple[StoredStep, ...] = ()
    incidents: tuple[Incident, ...] = ()
    """Newest first."""
    events: tuple[Event, ...] = ()
    """Oldest first."""
    decision: Event | None = None
    news: tuple[Event, ...] = ()
    """The events since the last look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """What the judge knows of a rollout at this moment.

    Folded again from the stored evaluations: the public state is published only when it changes, so its
    scores and times are older. It serves where there is nothing to fold.
    """

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


def glance(repository: Repository, stored: StoredRollout) -> Snapshot:
    """A rollout without its steps, incidents and events, for lists."""
    found = repository.restore(stored.spec.rollout_id) if stored.is_active else None
    folded = Folded(None if found is None else found[0])
    for evaluation in () if found is None else found[1]:
        folded.take(evaluation)
    return Snapshot(stored=stored, now=folded.present(stored))


class Follower:
    """Looks at one rollout; each look reads only what is new.

    Raises :class:`UnknownRollout` from the start when there is no such rollout.
    """

    def __init__(self, repository: Repository, rollout_id: str) -> None:
        self._repository = repository
        self._rollout_id = rollout_id
        seq = find(repository, rollout_id).seq
        self._folded = Folded(repository.last_fold(rollout_id))
        self._after = max(0, min(seq - LOOK_BACK, self._folded.seq))
        self._events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._decision: Event | None = None

    def look(self) -> Snapshot:
        """The rollout as it is now."""
        stored = find(self._repository, self._rollout_id)
        news = self._news()
        return Snapshot(
            stored=stored,
            now=self._folded.present(stored),
            steps=tuple(self._repository.steps_of(self._rollout_id)),
            incidents=tuple(self._repository.incidents_of(self._rollout_id)),
            events=tuple(self._events),
            decision=self._decision,
            news=news,
        )

    def _news(self) -> tuple[Event, ...]:
        evaluations = self._repository.evaluations_of(self._rollout_id, self._after)
        if not evaluations:
            return ()
        self._after = evaluations[-1].seq
        for evaluation in evaluations:
            self._folded.take(evaluation)
        news = events_of(evaluations)
        self._events.extend(news)
        self._decision = last_decision(news) or self._decision
        return tuple(news)


def follow(
    follower: Follower, show: Callable[[Snapshot], None], *, within_s: float, until_pause: bool = False
) -> tuple[Snapshot, Exit]:
    """Show the rollout until it ended or ``within_s`` seconds are over; the last look and the exit code.

    With ``until_pause`` a pause that waits for a person ends it, too.
    """
    deadline = time.monotonic() + within_s
    for snapshot in _looks(follower):
        show(snapshot)
        stored = snapshot.stored
        if not stored.is_active:
            return snapshot, OF_PHASE[stored.phase]
        is_over = time.monotonic() >= deadline
        if snapshot.now.waits_for_person and (until_pause or is_over):
            return snapshot, Exit.WAITING
        if is_over:
            return snapshot, Exit.STILL_RUNNING
        time.sleep(min(LOOK_S, max(0.0, deadline - time.monotonic())))
    raise AssertionError("looking never ends by itself")


def _looks(follower: Follower) -> Iterator[Snapshot]:
    """One look after the other; a database that is gone for a while is borne."""
    silent_since: float | None = None
    for _ in count():
        try:
            snapshot = follower.look()
        except StoreUnavailable:
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > PATIENCE_S:
                raise
            time.sleep(LOOK_S)
            continue
        silent_since = None
        yield snapshot
