"""What we do about a verdict. A decision is a value; only an actuator may act on it."""

from __future__ import annotations

from enum import Enum
from uuid import UUID, uuid5

import msgspec

DECISIONS_NAMESPACE = UUID("5e17a000-5e17-5e17-8e17-5e17a0000001")
"""Fixed for ever: decision ids derive from it."""


class DecisionKind(Enum):
    """The six things Sentra decides."""

    HOLD = "HOLD"
    ADVANCE = "ADVANCE"
    PAUSE = "PAUSE"
    RESUME = "RESUME"
    PROMOTE = "PROMOTE"
    ROLL_BACK = "ROLL_BACK"


class Order(Enum):
    """What the actuator is asked for, if anything."""

    NONE = "none"
    PREPARE = "prepare"
    """Check permissions and foreign controllers, remember the pristine state, take the fence."""
    SHIFT = "shift"
    """Bring ``weight_bp`` in force and verify it."""
    FINALISE = "finalise"
    """Make the canary the new stable and remove what Sentra added."""
    RESTORE = "restore"
    """Bring the canary to 0 and remove what Sentra added."""


class Cause(Enum):
    """Why, in one word, for counting; the sentence is in ``reason``."""

    START = "start"
    PASSED = "passed"
    FAIL = "fail"
    SEVERE = "severe"
    NO_DATA = "no_data"
    SHARED = "shared"
    INCONCLUSIVE = "inconclusive"
    OPERATOR = "operator"
    APPROVAL = "approval"
    DRIFT = "drift"
    ACTUATION = "actuation"
    PAUSE_TIMEOUT = "pause_timeout"
    OVERTIME = "overtime"
    RECOVERED = "recovered"
    ABORT = "abort"
    RESTART = "restart"


def decision_id(rollout_id: str, seq: int) -> str:
    """The identity of the decision taken by fold ``seq`` of a rollout: the same in every replay."""
    return str(uuid5(DECISIONS_NAMESPACE, f"{rollout_id}/{seq}"))


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One decision. ``generation`` rises with every decision that orders something: the highest one rules."""

    decision_id: str
    rollout_id: str
    seq: int
    kind: DecisionKind
    cause: Cause
    reason: str
    order: Order = Order.NONE
    weight_bp: int = 0
    generation: int = 0
    step_index: int = 0
    at: float = 0.0
    override: bool = False
    """An operator decided this against or without the evidence."""
    unproven: bool = False
    """Advanced by the policy's ``advance_unproven``, not by passes."""


class CommandKind(Enum):
    """What an operator may ask of a rollout."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    ADVANCE = "advance"
    PROMOTE = "promote"
    ABORT = "abort"
    CHANGE_POLICY = "change_policy"


class ActionOutcome(Enum):
    """What the actuator reports about an order or about what it sees."""

    SENT = "sent"
    """Journaled and on the wire; nothing is known yet."""
    VERIFIED = "verified"
    """In force, seen by read-back (or better)."""
    NOT_APPLIED = "not_applied"
    """Tried and not in force; the old state rules."""
    REFUSED = "refused"
    """Will not work however often it is tried: permissions, a foreign controller, no such target."""
    DRIFT = "drift"
    """Somebody else changed what was in force."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How a command was taken. Refused ones are recorded and answered as well."""

    command_id: str
    accepted: bool
    reason: str
    possible: tuple[str, ...] = ()
    """Commands that this state would accept."""


class IncidentKind(Enum):
    """What an alerting consumer wants to hear of."""

    FAIL = "fail"
    SEVERE = "severe"
    PAUSED = "paused"
    ROLLED_BACK = "rolled_back"
    DRIFT = "drift"
    ACTUATION = "actuation"
    SPLIT = "split"
    LOST_SOURCE = "lost_source"
    NO_DATA = "no_data"
    LONG_PAUSE = "long_pause"
    STUCK_ROLL_BACK = "stuck_roll_back"
    OVERTIME = "overtime"
    DEAD_LETTER = "dead_letter"


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """Something a person may have to look at."""

    rollout_id: str
    kind: IncidentKind
    at: float
    step_index: int
    detail: str
    seq: int = 0
