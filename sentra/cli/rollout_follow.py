"""Follows a rollout in the database until it ends: looks again and again, which works with any database."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from domain.decision import Incident
from domain.errors import StoreUnavailable
from sentra.cli.exits import OF_PHASE, Exit
from sentra.cli.rollout_ask import find
from sentra.cli.rollout_events import Event, events_of, last_decision
from sentra.cli.rollout_present import Folded, Present
from store.queries import StoredRollout, StoredStep
from store.repository import Repository

LOOK_S = 0.3
PATIENCE_S = 30.0
"""How long a database that does not answer is borne: the rollout goes on without it being watched."""
LOOK_BACK = 500
"""Records read for what happened before we began to look."""
KEPT_EVENTS = 50


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
