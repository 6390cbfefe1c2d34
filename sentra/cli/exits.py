"""Exit codes, and which error ends in which. Scripts depend on them: they never change meaning."""

from __future__ import annotations

from enum import IntEnum

from domain.errors import ActuationError, ConfigError, Denied, SentraError, StoreUnavailable
from domain.rollout import Phase
from streams.bus import BrokerUnavailable


class Exit(IntEnum):
    """What a command's end means."""

    OK = 0
    """As wanted."""
    ERROR = 1
    """An error, or the command was called wrongly."""
    ROLLED_BACK = 2
    """The rollout was rolled back."""
    ABORTED = 3
    """The rollout was aborted."""
    STILL_RUNNING = 4
    """The time-out came before the end; the rollout goes on."""
    REJECTED = 5
    """Sentra refused what was asked."""
    NOT_AUTHORISED = 6
    """Not allowed."""
    UNREACHABLE = 7
    """Sentra, its database or its broker cannot be reached."""
    WAITING = 8
    """Paused, and waiting for a person."""
    UNEXPECTED = 9
    """The demo ended otherwise than expected."""


class Rejected(SentraError):
    """Sentra refused what was asked of it."""


class Unreachable(SentraError):
    """Nothing answers."""


def exit_of(error: SentraError) -> Exit:
    """The exit code of an error.

    >>> exit_of(Unreachable("no"))
    <Exit.UNREACHABLE: 7>
    """
    match error:
        case Rejected():
            return Exit.REJECTED
        case Unreachable() | StoreUnavailable() | BrokerUnavailable():
            return Exit.UNREACHABLE
        case Denied():
            return Exit.NOT_AUTHORISED
        case ConfigError() | ActuationError() | SentraError():
            return Exit.ERROR


OF_PHASE = {
    Phase.PROMOTED: Exit.OK,
    Phase.ROLLED_BACK: Exit.ROLLED_BACK,
    Phase.ABORTED: Exit.ABORTED,
    Phase.FAILED: Exit.ERROR,
    Phase.PAUSED: Exit.WAITING,
}
"""The exit code of a rollout's end, or of a pause that waits for a person."""
