"""The port every platform implements: what can be asked of whatever splits a service's traffic.

Four questions and no more: what can you do (``capabilities``), is anything in the way (``preflight``), what
is in force (``observe``), write this (``apply``). There is no ``verify``: a split is verified when
``observe`` shows it, so :func:`is_in_force` answers for all platforms alike. Bringing traffic down and
tidying up are kinds of ``apply``, because they too are one guarded write.

The rule: an adapter is bound to one target and one pair of versions, makes at most one write per ``apply``,
never loops, and raises nothing but the :class:`domain.errors.ActuationError` family. Deadlines and retries
are ``guarded.py``'s, the journal and the order of things ``shift.py``'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Protocol

from domain.decision import Order
from domain.errors import InvalidSplit, Unsupported
from domain.policy import MatchRule
from domain.units import FULL_BP, bp_text, check_weight

TargetValue = str | int | float | bool
"""What a policy may say under ``traffic.target``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What an adapter is made for: one target of the policy file and the two versions of a rollout."""

    service: str
    stable: str
    canary: str
    environment: str = ""
    target: Mapping[str, TargetValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """Who may write. The epoch comes from the target's lease and only ever rises."""

    owner: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How traffic is divided: ``canary_bp`` basis points to the canary, the rest to stable.

    Raises
    ------
    InvalidSplit
        A weight outside 0..10000, or two versions that are none or the same.
    """

    stable: str
    canary: str
    canary_bp: int

    def __post_init__(self) -> None:
        try:
            check_weight(self.canary_bp)
        except ValueError as exc:
            raise InvalidSplit(str(exc)) from exc
        if not self.stable or not self.canary:
            raise InvalidSplit("a split needs the names of both versions")
        if self.stable == self.canary:
            raise InvalidSplit(f"stable and canary are both {self.stable!r}; a split needs two versions")

    def __str__(self) -> str:
        return f"{bp_text(self.canary_bp)} on {self.canary}, the rest on {self.stable}"


class CasLevel(Enum):
    """How far the platform itself refuses a write that was based on something older."""

    STRONG = "strong"
    """The write and the comparison are one step."""
    WEAK = "weak"
    """There is a comparison, but not of what matters."""
    NONE = "none"
    """Last writer wins; a foreign write is only seen afterwards."""


class VerifyLevel(IntEnum):
    """The strongest proof that a split is in force."""

    READBACK = 1
    """What was stored is read back."""
    RECONCILED = 2
    """The part that serves reports that it works with what was stored."""
    DATAPLANE = 3
    """Requests were counted per version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a platform can do; constant for one adapter class."""

    cas: CasLevel
    verify: VerifyLevel
    quantum_bp: int = 1
    """The smallest change of weight it can make."""
    header_match: bool = False
    cookie_match: bool = False
    path_match: bool = False
    lossless: bool = False
    """A shift by itself fails no request."""
    delegated: bool = False
    """The platform owns the weights; it can only be told to go on or to go back."""
    carries_fence: bool = True
    """Owner and epoch are stored with the split; otherwise only the lease protects it."""
    propagation_p50_s: float = 0.1
    propagation_max_s: float = 10.0
    """How long a write may take to be in force; three times as long is waited for before giving up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Requests that each version has answered since the proxy started. Counters, so only differences mean."""

    stable: float
    canary: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What is in force, as far as the platform tells."""

    split: Split | None
    """``None`` when traffic goes to anything else than the two versions."""
    reconciled: bool = True
    """Whether what is stored is also what serves."""
    token: str = ""
    """The platform's version of what is stored; changes with every write, also a stranger's."""
    fence: Fence | None = None
    """Who wrote last, or ``None`` when Sentra never did."""
    op_id: str = ""
    """The operation that wrote last, where the platform can carry it."""
    match_active: bool = False
    """Whether Sentra's own route for chosen requests exists."""
    foreign: str = ""
    """A sentence on what somebody else changed of ours; empty when nothing."""
    problem: str = ""
    """A sentence on why the platform does not work with what is stored; empty when it does or soon will."""
    served: Served | None = None


class WriteOutcome(Enum):
    """How an ``apply`` ended, if it ended well."""

    APPLIED = "applied"
    NOOP = "noop"
    """Everything asked for was so already; nothing was written."""
    PENDING = "pending"
    """Accepted; the platform is still working on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftRequest:
    """One write. The same ``op_id`` twice has the effect of once.

    ``kind`` is never ``Order.NONE``. PREPARE and RESTORE carry 0 bp and FINALISE 10000 bp. ``expect`` is the
    token the caller saw (``""``: whatever is there). ``over_drift`` says that the caller knows of a
    stranger's change and wants it overwritten; RESTORE always does.
    """

    op_id: str
    kind: Order
    split: Split
    fence: Fence
    match: MatchRule = field(default_factory=MatchRule)
    expect: str = ""
    over_drift: bool = False
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        fixed = {Order.PREPARE: 0, Order.RESTORE: 0, Order.FINALISE: FULL_BP}.get(self.kind)
        if fixed is not None and self.split.canary_bp != fixed:
            raise InvalidSplit(
                f"{self.kind.value} means {bp_text(fixed)}, got {bp_text(self.split.canary_bp)}"
            )
        if self.kind is Order.NONE:
            raise InvalidSplit("there is nothing to apply in an order of kind none")

    @property
    def is_down(self) -> bool:
        """Whether it takes all traffic off the canary: such writes go first and are never given up."""
        return self.kind is Order.RESTORE

    @property
    def wants_match(self) -> bool:
        """Whether chosen requests shall see the canary afterwards."""
        return self.kind is Order.SHIFT and bool(self.match)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a write did."""

    op_id: str
    outcome: WriteOutcome
    applied_bp: int
    """What the platform could express of the weight asked for."""
    token_before: str = ""
    token_after: str = ""


class TrafficAdapter(Protocol):
    """One target on one platform. Made by ``registry.open_adapter``; used by one task at a time."""

    @property
    def name(self) -> str:
        """The adapter's name in policies."""
        ...

    def capabilities(self) -> Capabilities:
        """What the platform can do. Pure; may be called at any time."""
        ...

    async def preflight(self) -> tuple[str, ...]:
        """Sentences on what stands in the way of a rollout; empty when nothing does. Changes nothing.

        Called once before a rollout's first write: permissions, other controllers, a target that is not all
        on stable, a version the platform does not know.
        """
        ...

    async def observe(self) -> Observed:
        """What is in force now. Changes nothing; called often.

        Raises
        ------
        TargetNotFound, Denied, Throttled, Transient
        """
        ...

    async def apply(self, request: ShiftRequest) -> Receipt:
        """One compare-and-set write; what is not Sentra's stays as it was, byte for byte.

        Called again with the same request after a lost answer. On return the split is stored; whether it is
        in force is for ``observe`` to say.

        Raises
        ------
        InvalidSplit, Unsupported
            Before anything was sent.
        Fenced, Conflict, Drift
            Somebody else was there; nothing was written.
        TargetNotFound, Denied, Throttled, Transient, VerifyFailed
            ``outcome`` says whether something may have been written.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections. Safe to repeat."""
        ...


def quantise(weight_bp: int, quantum_bp: int) -> int:
    """The nearest weight that the platform can express.

    Monotone; 0 and 10000 are exact; a weight above 0 never becomes 0 and one below 100 % never becomes 100 %,
    as far as the quantum leaves room.

    >>> [quantise(bp, 100) for bp in (0, 20, 149, 9_990, 10_000)]
    [0, 100, 100, 9900, 10000]
    """
    if weight_bp in (0, FULL_BP):
        return weight_bp
    nearest = (weight_bp + quantum_bp // 2) // quantum_bp * quantum_bp
    highest = (FULL_BP - 1) // quantum_bp * quantum_bp
    return max(min(nearest, highest), min(quantum_bp, FULL_BP))


def is_in_force(observed: Observed, request: ShiftRequest, capabilities: Capabilities) -> bool:
    """Whether ``observed`` shows all that ``request`` asks for, written under its fence and working."""
    return (
        observed.reconciled
        and not observed.problem
        and is_stored(observed, request, capabilities)
        and (observed.fence == request.fence or not capabilities.carries_fence)
    )


def is_stored(observed: Observed, request: ShiftRequest, capabilities: Capabilities) -> bool:
    """Whether what is stored says what ``request`` says, whoever wrote it, in force or not."""
    wanted_bp = quantise(request.split.canary_bp, capabilities.quantum_bp)
    return (
        not observed.foreign
        and observed.split is not None
        and observed.split.canary_bp == wanted_bp
        and observed.match_active == request.wants_match
    )


def check_request(request: ShiftRequest, binding: Binding, capabilities: Capabilities, platform: str) -> None:
    """Refuse what can be seen to be wrong before anything is sent.

    Raises
    ------
    InvalidSplit
        Other versions than the adapter was made for.
    Unsupported
        A match rule that the platform cannot carry out.
    """
    split = request.split
    if (split.stable, split.canary) != (binding.stable, binding.canary):
        raise InvalidSplit(
            f"asked to move {split.stable} -> {split.canary}, but this adapter was made for "
            f"{binding.stable} -> {binding.canary}"
        )
    _require_match_ability(request.match, capabilities, platform)


def _require_match_ability(match: MatchRule, capabilities: Capabilities, platform: str) -> None:
    asked = {
        "headers": (bool(match.headers), capabilities.header_match),
        "cookies": (bool(match.cookies), capabilities.cookie_match),
        "a path": (bool(match.path), capabilities.path_match),
    }
    for what, (wanted, able) in asked.items():
        if wanted and not able:
            raise Unsupported(f"{platform} cannot route by {what}; remove it from match: in the policy")
