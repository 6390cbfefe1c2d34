"""What can happen to a rollout, as the decision machine sees it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from domain.decision import ActionOutcome, CommandKind
from domain.records import Command, RestartInput
from domain.rollout import Acted
from domain.verdict import Verdict


class Event(Enum):
    """The columns of the decision table."""

    START = "start"
    PASS = "PASS"
    INCONCLUSIVE = "INCONCLUSIVE"
    NO_DATA = "NO_DATA"
    FAIL = "FAIL"
    SEVERE = "SEVERE"
    CLOCK = "time passes"
    PAUSE = "pause"
    RESUME = "resume"
    ADVANCE = "advance"
    PROMOTE = "promote"
    ABORT = "abort"
    CHANGE_POLICY = "change_policy"
    VERIFIED = "verified"
    NOT_APPLIED = "not applied"
    DRIFT = "drift"
    RESTART = "restart of Sentra"


OF_VERDICT = {
    Verdict.PASS: Event.PASS,
    Verdict.INCONCLUSIVE: Event.INCONCLUSIVE,
    Verdict.NO_DATA: Event.NO_DATA,
    Verdict.FAIL: Event.FAIL,
    Verdict.SEVERE: Event.SEVERE,
}
OF_COMMAND = {
    CommandKind.START: Event.START,
    CommandKind.PAUSE: Event.PAUSE,
    CommandKind.RESUME: Event.RESUME,
    CommandKind.ADVANCE: Event.ADVANCE,
    CommandKind.PROMOTE: Event.PROMOTE,
    CommandKind.ABORT: Event.ABORT,
    CommandKind.CHANGE_POLICY: Event.CHANGE_POLICY,
}
OF_OUTCOME = {
    ActionOutcome.VERIFIED: Event.VERIFIED,
    ActionOutcome.NOT_APPLIED: Event.NOT_APPLIED,
    ActionOutcome.REFUSED: Event.NOT_APPLIED,
    ActionOutcome.DRIFT: Event.DRIFT,
}
"""``SENT`` is missing on purpose: it is news for people, not for the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TickFacts:
    """What the machine needs of a judged tick."""

    start: float
    end: float
    verdict: Verdict
    reason: str
    lag_s: float
    """How far the tick's end is behind the folded clock, beyond what its sources may take."""
    shared: bool = False
    """Every failing gate fails on the comparator as well."""
    point_holds: bool = False
    """All required gates keep their limit on at least ``min_samples``."""
    canary_n: float | None = None
    """Measured canary exposure; ``None`` when unknown."""
    stable_n: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One event with its facts. ``now`` is folded time."""

    event: Event
    now: float
    tick: TickFacts | None = None
    command: Command | None = None
    acted: Acted | None = None
    restart: RestartInput | None = None
