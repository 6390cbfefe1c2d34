"""The reference adapter: a platform in memory, stricter than any real one.

It keeps every rule of the port to the letter (compare-and-set, fence, no-op for what is so already,
strangers' fields untouched) and can be told to misbehave like real ones do, through ``Platform.faults``.
Tests, examples and other adapters' authors read this file first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace
from time import monotonic

from actuators.base import (
    Binding,
    Capabilities,
    CasLevel,
    Fence,
    Observed,
    Receipt,
    Served,
    ShiftRequest,
    Split,
    VerifyLevel,
    WriteOutcome,
    check_request,
    quantise,
)
from actuators.fence import check_fence
from domain.decision import Order
from domain.errors import ActuationError, Conflict, Drift, Outcome, TargetNotFound, Transient
from domain.policy import MatchRule
from domain.units import FULL_BP


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One state of the platform's resource."""

    weights: dict[str, int]
    """Version to basis points; the sum is always 10000."""
    revision: int = 0
    fence: Fence | None = None
    op_id: str = ""
    written: dict[str, int] | None = None
    """The weights as Sentra last wrote them; a stranger's edit does not touch this."""
    match: MatchRule = field(default_factory=MatchRule)
    strangers: str = ""
    """What others keep in the same resource."""


@dataclass(slots=True)
class Faults:
    """How the platform misbehaves. Lists are used up from the left, one entry per call."""

    before_apply: deque[ActuationError] = field(default_factory=deque)
    """Raised before anything is written."""
    lose_answers: int = 0
    """So many applies write and then fail as if the connection broke."""
    on_observe: deque[ActuationError] = field(default_factory=deque)
    apply_takes_s: float = 0.0
    propagation_s: float = 0.0
    never_reconciles: bool = False
    """Writes are stored and never come into force."""


class Platform:
    """The resource and what happens to it. One per target; adapters of several controllers may share it.

    ``states`` is every state that a reader could have seen, ``writes`` how many writes
    reached it, ``observations`` how often somebody looked.
    """

    def __init__(self, weights: dict[str, int], *, versions: set[str] | None = None) -> None:
        self.stored = Stored(weights=dict(weights))
        self.versions = set(weights) if versions is None else versions
        self.states: list[Stored] = [self.stored]
        self.faults = Faults()
        self.observations = 0
        self._written_at = monotonic() - 3600.0

    @property
    def writes(self) -> int:
        return len(self.states) - 1

    @property
    def weight_changes(self) -> list[dict[str, int]]:
        """The splits traffic went through, without repetitions."""
        changes: list[dict[str, int]] = []
        for state in self.states:
            if not changes or changes[-1] != state.weights:
                changes.append(state.weights)
        return changes

    @property
    def in_force(self) -> bool:
        """Whether what is stored also serves by now."""
        waited = monotonic() - self._written_at >= self.faults.propagation_s
        return waited and not self.faults.never_reconciles

    def store(self, state: Stored) -> None:
        """Commit one state; refuses what no platform could mean."""
        if sum(state.weights.values()) != FULL_BP or min(state.weights.values()) < 0:
            raise AssertionError(f"weights must sum to {FULL_BP}, got {state.weights}")
        self.stored = state
        self.states.append(state)
        self._written_at = monotonic()

    def edit(self, weights: dict[str, int]) -> None:
        """A stranger changes the weights, past Sentra."""
        self.store(replace(self.stored, weights=dict(weights), revision=self.stored.revision + 1))


PLATFORMS: dict[str, Platform] = {}
"""By target name, so that policies with ``adapter: memory`` find theirs within this process."""


class MemoryAdapter:
    """Moves the traffic of a :class:`Platform`.

    Target keys: ``name`` (default: the service), ``quantum_bp`` (default 1).
    """

    name = "memory"

    def __init__(self, binding: Binding, platform: Platform | None = None) -> None:
        self._binding = binding
        self._quantum_bp = int(binding.target.get("quantum_bp", 1))
        key = str(binding.target.get("name", binding.service))
        versions = {binding.stable, binding.canary}
        fresh = Platform({binding.stable: FULL_BP}, versions=versions)
        self.platform = platform if platform is not None else PLATFORMS.setdefault(key, fresh)

    def capabilities(self) -> Capabilities:
        return Capabilities(
            cas=CasLevel.STRONG,
            verify=VerifyLevel.RECONCILED,
            quantum_bp=self._quantum_bp,
            header_match=True,
            cookie_match=True,
            lossless=True,
            propagation_p50_s=0.0,
            propagation_max_s=1.0,
        )

    async def preflight(self) -> tuple[str, ...]:
        problems = [
            f"{self.name} knows no version {version!r}; it knows {', '.join(sorted(self.platform.versions))}"
            for version in (self._binding.stable, self._binding.canary)
            if version not in self.platform.versions
        ]
        split = _split(self._binding, self.platform.stored)
        if split is None or split.canary_bp:
            problems.append(f"traffic is not all on {self._binding.stable}: {self.platform.stored.weights}")
        return tuple(problems)

    async def observe(self) -> Observed:
        faults, stored = self.platform.faults, self.platform.stored
        self.platform.observations += 1
        if faults.on_observe:
            raise faults.on_observe.popleft()
        return Observed(
            split=_split(self._binding, stored),
            reconciled=self.platform.in_force,
            token=str(stored.revision),
            fence=stored.fence,
            op_id=stored.op_id,
            match_active=bool(stored.match),
            foreign=_foreign(self._binding, stored),
            served=Served(stable=0.0, canary=0.0),
        )

    async def apply(self, request: ShiftRequest) -> Receipt:
        check_request(request, self._binding, self.capabilities(), self.name)
        faults = self.platform.faults
        if faults.before_apply:
            raise faults.before_apply.popleft()
        await asyncio.sleep(faults.apply_takes_s)
        receipt = self._commit(request)
        if faults.lose_answers:
            faults.lose_answers -= 1
            raise Transient("the connection broke before the answer came", outcome=Outcome.UNKNOWN)
        return receipt

    async def aclose(self) -> None:
        return None

    def _commit(self, request: ShiftRequest) -> Receipt:
        """Check and write without giving up control in between: this is the compare-and-set."""
        old, new = self.platform.stored, self._wanted(request)
        self._check(request, old)
        is_noop = _same(old, new)
        if not is_noop:
            self.platform.store(new)
        return Receipt(
            op_id=request.op_id,
            outcome=WriteOutcome.NOOP if is_noop else WriteOutcome.APPLIED,
            applied_bp=new.weights.get(request.split.canary, 0),
            token_before=str(old.revision),
            token_after=str(self.platform.stored.revision),
        )

    def _check(self, request: ShiftRequest, old: Stored) -> None:
        check_fence(old.fence, request.fence)
        if request.expect and request.expect != str(old.revision):
            raise Conflict(f"expected revision {request.expect}, found {old.revision}")
        foreign = _foreign(self._binding, old)
        if foreign and not (request.over_drift or request.is_down):
            raise Drift(foreign)
        needed = {request.split.stable} if request.is_down else {request.split.stable, request.split.canary}
        for missing in sorted(needed - self.platform.versions):
            raise TargetNotFound(f"{self.name} knows no version {missing!r}")

    def _wanted(self, request: ShiftRequest) -> Stored:
        split, old = request.split, self.platform.stored
        applied = quantise(split.canary_bp, self._quantum_bp)
        shares = {split.stable: FULL_BP - applied, split.canary: applied}
        weights = {version: bp for version, bp in shares.items() if bp}
        return replace(
            old,
            weights=weights,
            revision=old.revision + 1,
            fence=request.fence,
            op_id=request.op_id,
            written=weights,
            match=request.match if request.kind is Order.SHIFT else MatchRule(),
        )


def _split(binding: Binding, stored: Stored) -> Split | None:
    """The split between the two versions, or ``None`` when a third one has traffic."""
    if any(bp and version not in (binding.stable, binding.canary) for version, bp in stored.weights.items()):
        return None
    return Split(
        stable=binding.stable, canary=binding.canary, canary_bp=stored.weights.get(binding.canary, 0)
    )


def _foreign(binding: Binding, stored: Stored) -> str:
    """Whether the weights are still what Sentra wrote, where it ever wrote."""
    split = _split(binding, stored)
    if split is None:
        return f"a version outside this rollout has traffic: {stored.weights}"
    if stored.written is None or stored.weights == stored.written:
        return ""
    return f"the weights were changed from {stored.written} to {stored.weights} by somebody else"


def _same(old: Stored, new: Stored) -> bool:
    return replace(old, revision=0, op_id="") == replace(new, revision=0, op_id="")
