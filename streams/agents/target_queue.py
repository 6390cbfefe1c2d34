"""What waits for a target, what runs on it, and which order wins. Plain state; ``targets.py`` is its life.

The rules: within a rollout the highest generation wins; after an order down nothing of that rollout goes up
any more; a judge that was deposed (an older ``owner_epoch``) is not heard; whatever goes down goes first.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from actuators.base import Fence, ShiftRequest, TrafficAdapter
from actuators.rate import RateBudget
from domain.decision import Order
from domain.records import DecisionRecord

REMEMBERED = 64
"""Rollouts per target of which late orders are still recognised without asking the journal."""


@dataclass(slots=True)
class Course:
    """What the driver remembers of one rollout on one target."""

    generation: int = -1
    owner_epoch: int = 0
    goes_down: bool = False
    fence: Fence | None = None
    drifted: bool = False
    failures: int = 0
    """Failed orders in a row that the judge answers with the same one again."""
    unsettled: int = 0
    """Looks in a row at which the platform did not work with what is stored."""


@dataclass(slots=True)
class Target:
    """One target: what waits for it, what runs on it, what is watched."""

    key: str
    budget: RateBudget
    courses: dict[str, Course] = field(default_factory=dict)
    waiting: dict[str, DecisionRecord] = field(default_factory=dict)
    """The newest order of each rollout, oldest rollout first."""
    overtaken: list[DecisionRecord] = field(default_factory=list)
    """Orders that a newer one has replaced before they ended."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    running: asyncio.Task[None] | None = None
    order: DecisionRecord | None = None
    """The order that runs; none while the target is only being looked at."""
    adapter: TrafficAdapter | None = None
    adapter_for: str = ""
    watched: tuple[DecisionRecord, ShiftRequest] | None = None

    def course(self, rollout_id: str) -> Course:
        if rollout_id not in self.courses and len(self.courses) >= REMEMBERED:
            del self.courses[next(iter(self.courses))]
        return self.courses.setdefault(rollout_id, Course())

    def holds(self, record: DecisionRecord) -> bool:
        """Whether this very decision waits or runs already."""
        held = (self.order, self.waiting.get(record.decision.rollout_id))
        return any(each and each.decision.decision_id == record.decision.decision_id for each in held)

    def next_order(self) -> DecisionRecord | None:
        """Whoever goes down first; else in order of arrival."""
        if not self.waiting:
            return None
        down = [key for key, record in self.waiting.items() if is_down(record)]
        return self.waiting.pop(down[0] if down else next(iter(self.waiting)))


def is_down(record: DecisionRecord) -> bool:
    return record.decision.order is Order.RESTORE


def is_newest(course: Course, record: DecisionRecord) -> bool:
    if record.owner_epoch < course.owner_epoch or record.decision.generation < course.generation:
        return False
    return is_down(record) or not course.goes_down
