"""Follows a rollout in the database until it ends: looks again and again, which works with any database."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from domain.decision import Incident
from domain.errors import StoreUnavailable
from domain.policy import Policy
from domain.rollout import PauseCause, Phase
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

BY_PERSON = {
    cause.value
    for cause in (
        PauseCause.OPERATOR,
        PauseCause.APPROVAL,
        PauseCause.INCONCLUSIVE,
        PauseCause.DRIFT,
        PauseCause.ACTUATION,
    )
}
"""Pauses that only a person ends (decision machine, rule 5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that is shown of a rollout at one moment."""

    stored: StoredRollout
    policy: Policy
    """The one in force: gates can be changed in flight."""
    steps: tuple[StoredStep, ...]
    incidents: tuple[Incident, ...]
    """Newest first."""
    events: tuple[Event, ...]
    """Oldest first."""
    decision: Event | None
    news: tuple[Event, ...] = ()
    """The events since the last look."""

    @property
    def waits_for_person(self) -> bool:
        return waits_for_person(self.stored, self.policy)


def waits_for_person(stored: StoredRollout, policy: Policy) -> bool:
    """Whether it is paused and nothing but a person makes it go on.

    A failing rollout does not wait for one: it resumes or, after ``pause_timeout``, rolls back by itself.
    """
    public = stored.public
    if public is None or public.phase is not Phase.PAUSED or stored.phase is not Phase.PAUSED:
        return False  # the public state may be a moment behind the phase, and only it knows the causes
    causes = set(public.pause_causes)
    if PauseCause.FAIL.value in causes:
        return False
    return bool(causes & BY_PERSON) or not policy.auto_resume


class Follower:
    """Looks at one rollout; each look reads only what is new.

    Raises :class:`UnknownRollout` from the start when there is no such rollout.
    """

    def __init__(self, repository: Repository, rollout_id: str) -> None:
        self._repository = repository
        self._rollout_id = rollout_id
        stored = find(repository, rollout_id)
        self._policy = stored.spec.policy
        self._after = max(0, stored.seq - LOOK_BACK)
        self._events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._decision: Event | None = None
        fold = repository.last_fold(rollout_id)
        if fold is not None:
            self._policy = fold.context.policy

    def look(self) -> Snapshot:
        """The rollout as it is now."""
        stored = find(self._repository, self._rollout_id)
        news = self._news()
        return Snapshot(
            stored=stored,
            policy=self._policy,
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
            if evaluation.fold is not None:
                self._policy = evaluation.fold.context.policy
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
        if snapshot.waits_for_person and (until_pause or is_over):
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
