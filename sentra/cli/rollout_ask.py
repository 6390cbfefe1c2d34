"""Asks a running Sentra: finds rollouts, hands in commands, waits for the judge's answer.

A command is stored together with the promise to publish it, so it is never lost; but it counts only when the
judge has answered, accepted or refused. That takes well under a second while a worker runs.
"""

from __future__ import annotations

import getpass
import os
import re
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from difflib import get_close_matches
from uuid import uuid4

from domain.clock import SystemClock
from domain.decision import Answer, CommandKind
from domain.policy import Policy
from domain.records import Command
from domain.rollout import RolloutSpec
from sentra.cli.exits import Rejected, Unreachable
from store.errors import AlreadyActive, Duplicate, UnknownRollout
from store.queries import StoredRollout
from store.repository import Repository

ANSWER_S = 10.0
"""How long an answer is awaited. The way there and back takes about half a second."""
LOOK_S = 0.05
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Ids that people may choose: they are typed in shells and stand in paths."""
NEAR = 3
"""How many other rollouts an error names."""


def operator() -> str:
    """Who asks, when nobody says so: the user of this session."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return f"uid {os.getuid()}"


def new_id(service: str, at: float) -> str:
    """An id that is readable, sorts by time and is not used yet.

    >>> new_id("checkout", 0.0)[:-4]
    'checkout-19700101-000000-'
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", service)[:40].strip("-.") or "rollout"
    return f"{name}-{datetime.fromtimestamp(at, UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def new_command(
    kind: CommandKind,
    rollout_id: str,
    *,
    actor: str,
    reason: str = "",
    force: bool = False,
    spec: RolloutSpec | None = None,
    policy: Policy | None = None,
) -> Command:
    """A command of now."""
    return Command(
        command_id=str(uuid4()),
        rollout_id=rollout_id,
        kind=kind,
        actor=actor,
        reason=reason,
        at=SystemClock().now(),
        force=force,
        spec=spec,
        policy=policy,
    )


def find(repository: Repository, rollout_id: str | None) -> StoredRollout:
    """The rollout of this id, or the active one when none is given and exactly one is active.

    Raises :class:`UnknownRollout`, naming the id and those that are near it.
    """
    if rollout_id is None:
        return _only_active(repository)
    found = repository.get_rollout(rollout_id)
    if found is None:
        raise UnknownRollout(f"there is no rollout {rollout_id}{_near(repository, rollout_id)}")
    return found


def _only_active(repository: Repository) -> StoredRollout:
    active = repository.active_rollouts()
    if len(active) == 1:
        return active[0]
    if active:
        ids = ", ".join(each.spec.rollout_id for each in active)
        raise UnknownRollout(f"{len(active)} rollouts are active; name one of {ids}")
    raise UnknownRollout("no rollout is active; name one (all of them: sentra rollout list --all)")


def _near(repository: Repository, rollout_id: str) -> str:
    known = [each.spec.rollout_id for each in repository.list_rollouts()]
    if not known:
        return "; there are none yet"
    near = get_close_matches(rollout_id, known, n=NEAR, cutoff=0.4) or known[:NEAR]
    return f"; did you mean {' or '.join(near)}?"


def start(repository: Repository, spec: RolloutSpec, command: Command) -> Answer:
    """Start a rollout and return the judge's consent.

    Raises :class:`Rejected` when its place or its id is taken, or the judge refuses.
    """
    try:
        repository.start_rollout(spec, command)
    except (AlreadyActive, Duplicate) as exc:
        raise Rejected(str(exc)) from exc
    return _consent(repository, command)


def ask(repository: Repository, command: Command) -> Answer:
    """Hand in a command for a rollout and return the judge's consent; :class:`Rejected` else."""
    _refuse_ended(repository, command)
    repository.add_command(command)
    return _consent(repository, command)


def _refuse_ended(repository: Repository, command: Command) -> None:
    """The judge knows only rollouts that run: for one that has ended, nobody would answer."""
    found = repository.get_rollout(command.rollout_id)
    if found is not None and not found.is_active:
        raise Rejected(
            f"{_word(command.kind.value)} is refused: {command.rollout_id} has ended "
            f"({found.phase.value.replace('_', ' ')}); retry starts it once more as a new rollout"
        )


def _consent(repository: Repository, command: Command) -> Answer:
    answer = awaited(lambda: repository.answer_of(command.command_id), ANSWER_S)
    if answer is None:
        _refuse_ended(repository, command)  # it may have ended while the command was on its way
        raise Unreachable(
            f"the worker does not answer: {_word(command.kind.value)} of {command.rollout_id} is stored and "
            "will be carried out once one runs; start sentra up, or a worker with the roles judge, relay "
            "and record"
        )
    if not answer.accepted:
        possible = ", ".join(map(_word, answer.possible)) or "nothing"
        raise Rejected(f"{_word(command.kind.value)} is refused: {answer.reason} (possible now: {possible})")
    return answer


def _word(kind: str) -> str:
    """A command as it is called on the command line."""
    return kind.replace("_", "-")


def awaited(look: Callable[[], Answer | None], within_s: float) -> Answer | None:
    """What ``look`` finds within ``within_s`` seconds, if anything."""
    deadline = time.monotonic() + within_s
    while (found := look()) is None and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    return found
