"""What the user asked for: a validated policy. Reading one from YAML is ``policy_text``.

Every value here has passed every rule; a ``Policy`` that exists is one that Sentra can run. Durations are
seconds, weights basis points, limits plain numbers (a ratio, or milliseconds).
"""

from __future__ import annotations

from enum import Enum
from hashlib import sha256
from itertools import pairwise

import msgspec

from domain.errors import PolicyError
from domain.signal import Shape, SignalKind, signal_kind
from domain.units import FULL_BP, bp_text, duration_text


class Strategy(Enum):
    """How traffic moves."""

    CANARY = "canary"
    BLUE_GREEN = "blue_green"


class JudgeName(Enum):
    """Who turns gates into verdicts."""

    THRESHOLD = "threshold"
    EVIDENCE = "evidence"


class OnFail(Enum):
    PAUSE = "pause"
    ROLL_BACK = "roll_back"


class OnInconclusive(Enum):
    PAUSE = "pause"
    ADVANCE_UNPROVEN = "advance_unproven"
    ROLL_BACK = "roll_back"


class OnDrift(Enum):
    PAUSE = "pause"
    REASSERT = "reassert"


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """A rule on a signal: good when the value is at most ``slo``, beyond discussion at ``severe`` or more."""

    signal: str
    slo: float
    severe: float
    quantile: float | None = None
    required: bool = True
    window_s: float
    min_samples: int
    min_events: int

    @property
    def kind(self) -> SignalKind:
        """The signal's kind; the name was checked when the policy was read."""
        return signal_kind(self.signal)

    @property
    def limit_share(self) -> float:
        """The largest share of bad events that keeps the limit."""
        return self.slo if self.quantile is None else self._slower_share

    @property
    def _slower_share(self) -> float:
        # 1 - 0.9 is 0.09999999999999998: exactly 10 % slower must keep the limit.
        return round(1.0 - (self.quantile or 0.0), 12)

    @property
    def severe_share(self) -> float:
        """The share of (for a quantile gate: even slower) events from which the breach is severe."""
        return self.severe if self.quantile is None else self._slower_share

    @property
    def title(self) -> str:
        """The gate's name for people: ``p95 latency_ms`` or ``error_rate``."""
        return self.signal if self.quantile is None else f"p{self.quantile * 100:g} {self.signal}"


class NoDataRule(msgspec.Struct, frozen=True, kw_only=True):
    """How long silence is borne, and what then."""

    hold_s: float = 60.0
    then: OnFail = OnFail.PAUSE


class MatchRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who sees the canary whatever the weight: all of the named headers, cookies and the path prefix."""

    headers: dict[str, str] = {}
    cookies: dict[str, str] = {}
    path: str = ""

    def __bool__(self) -> bool:
        return bool(self.headers or self.cookies or self.path)


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Which adapter moves the traffic, and of what."""

    adapter: str
    target: dict[str, str | int | float | bool]


class Telemetry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Named sources from the configuration, by channel."""

    metrics: str = ""
    logs: str = ""
    traces: str = ""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A complete policy. Field meanings: README, "The policy file"."""

    service: str
    environment: str
    weights_bp: tuple[int, ...]
    gates: tuple[Gate, ...]
    traffic: Traffic
    telemetry: Telemetry = Telemetry()
    strategy: Strategy = Strategy.CANARY
    judge: JudgeName = JudgeName.EVIDENCE
    warmup_s: float = 30.0
    interval_s: float = 5.0
    window_s: float = 60.0
    pass_count: int = 3
    fail_count: int = 3
    """Ticks in a row with the window over its limit that fail a gate by its point value (judge: evidence)."""
    alpha: float = 0.01
    """Chance of rolling back a healthy rollout that judge: evidence may take, per rollout."""
    beta: float = 0.05
    """Chance of passing a canary that breaks its limit that judge: evidence may take, per step and gate."""
    min_ratio: float = 1.25
    """A regression smaller than this, canary over stable, is no reason to roll back (judge: evidence)."""
    min_step_time_s: float = 60.0
    max_step_time_s: float = 900.0
    max_rollout_time_s: float = 86_400.0
    pause_timeout_s: float = 600.0
    pause_alert_after_s: float = 300.0
    verify_timeout_s: float = 60.0
    keep_stable_for_s: float = 0.0
    auto_resume: bool = True
    approvals: tuple[int, ...] = ()
    """Steps (1-based) that a person must approve before traffic moves to them."""
    on_fail: OnFail = OnFail.PAUSE
    on_inconclusive: OnInconclusive = OnInconclusive.PAUSE
    on_no_data: NoDataRule = NoDataRule()
    on_drift: OnDrift = OnDrift.PAUSE
    on_overtime: OnFail = OnFail.PAUSE
    match: MatchRule = MatchRule()

    @property
    def version(self) -> str:
        """Content hash: two policies with one version are the same policy."""
        return sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:12]

    @property
    def last_step(self) -> int:
        return len(self.weights_bp) - 1

    def signals(self) -> tuple[str, ...]:
        """The signals its gates name, in order, once each."""
        return tuple(dict.fromkeys(gate.signal for gate in self.gates))


class Broken(Exception):
    """A rule is broken at a key; whoever knows the text adds the line."""

    def __init__(self, key: tuple[str | int, ...], message: str) -> None:
        self.key = key
        self.message = message
        super().__init__(message)


def check(policy: Policy) -> Policy:
    """``policy`` itself, or :class:`PolicyError` naming the first rule it breaks."""
    try:
        check_rules(policy)
    except Broken as broken:
        raise PolicyError(broken.message) from broken
    return policy


def check_rules(policy: Policy) -> None:
    """Every rule that needs more than one key to check; raises :class:`Broken`."""
    _check_names(policy)
    _check_weights(policy)
    _check_times(policy)
    _check_promises(policy)
    _check_gates(policy)


def _check_names(policy: Policy) -> None:
    for key in ("service", "environment"):
        if not getattr(policy, key).strip():
            raise Broken((key,), f"{key} must not be empty")
    if not policy.traffic.adapter:
        raise Broken(("traffic", "adapter"), "traffic.adapter must name an adapter")


def _check_weights(policy: Policy) -> None:
    weights = policy.weights_bp
    key = ("weights",)
    if not weights:
        raise Broken(key, "a policy needs at least one step")
    if any(later <= earlier for earlier, later in pairwise(weights)):
        raise Broken(key, f"weights must rise from step to step, got {_percents(weights)}")
    if weights[-1] != FULL_BP:
        raise Broken(key, f"the last weight must be 100 %, got {bp_text(weights[-1])}")
    if weights[0] == 0 and policy.strategy is not Strategy.BLUE_GREEN and not policy.match:
        raise Broken(
            key, "a first weight of 0 % needs strategy: blue_green or match:, or nothing reaches the canary"
        )
    if policy.strategy is Strategy.BLUE_GREEN and weights != (0, FULL_BP):
        raise Broken(
            key, f"strategy: blue_green switches at once: weights [0, 100], got {_percents(weights)}"
        )
    for step in policy.approvals:
        if not 1 <= step <= len(weights):
            raise Broken(("approvals",), f"approvals name steps 1..{len(weights)}, got {step}")


def _percents(weights: tuple[int, ...]) -> str:
    return "[" + ", ".join(f"{weight / 100:g}" for weight in weights) + "]"


def _check_times(policy: Policy) -> None:
    interval = policy.interval_s
    if not 1.0 <= interval <= 60.0 or interval != int(interval):
        raise Broken(("interval",), f"interval must be 1..60 whole seconds, got {duration_text(interval)}")
    if policy.pass_count < 1:
        raise Broken(("pass_count",), f"pass_count must be at least 1, got {policy.pass_count}")
    if policy.fail_count < 1:
        raise Broken(("fail_count",), f"fail_count must be at least 1, got {policy.fail_count}")
    if policy.verify_timeout_s <= 0:
        raise Broken(("verify_timeout",), "verify_timeout must be longer than 0s")
    if policy.max_step_time_s < policy.min_step_time_s:
        raise Broken(
            ("max_step_time",),
            f"max_step_time ({duration_text(policy.max_step_time_s)}) must not be shorter than "
            f"min_step_time ({duration_text(policy.min_step_time_s)})",
        )
    needed = policy.warmup_s + policy.pass_count * interval
    if policy.max_step_time_s < needed:
        raise Broken(
            ("max_step_time",),
            f"max_step_time ({duration_text(policy.max_step_time_s)}) is too short to warm up and pass "
            f"{policy.pass_count} times ({duration_text(needed)})",
        )


def _check_promises(policy: Policy) -> None:
    for key, most in (("alpha", 0.2), ("beta", 0.5)):
        value = getattr(policy, key)
        if not 1e-6 <= value <= most:
            raise Broken((key,), f"{key} must lie in 0.0001 %..{most * 100:g} %, got {value * 100:g} %")
    if not 1.0 <= policy.min_ratio <= 100.0:
        raise Broken(("min_ratio",), f"min_ratio must lie in 1..100, got {policy.min_ratio:g}")


def _check_gates(policy: Policy) -> None:
    if not any(gate.required for gate in policy.gates):
        raise Broken(("gates",), "a policy needs at least one required gate, or everything would pass")
    seen: set[tuple[str, float | None]] = set()
    for index, gate in enumerate(policy.gates):
        _check_gate(policy, index, gate)
        if (gate.signal, gate.quantile) in seen:
            raise Broken(("gates", index, "signal"), f"{gate.title} is gated twice")
        seen.add((gate.signal, gate.quantile))
        channel = gate.kind.channel.value
        if not getattr(policy.telemetry, channel):
            raise Broken(
                ("gates", index, "signal"),
                f"{gate.signal} comes from {channel}, but telemetry.{channel} names no source",
            )


def _check_gate(policy: Policy, index: int, gate: Gate) -> None:
    key: tuple[str | int, ...] = ("gates", index)
    if gate.window_s < policy.interval_s:
        raise Broken(
            (*key, "window"),
            f"a window of {duration_text(gate.window_s)} is shorter than one tick "
            f"(interval {duration_text(policy.interval_s)})",
        )
    if gate.min_samples < 1:
        raise Broken((*key, "min_samples"), f"min_samples must be at least 1, got {gate.min_samples}")
    if gate.min_events < 1:
        raise Broken((*key, "min_events"), f"min_events must be at least 1, got {gate.min_events}")
    _check_limits(key, gate)


def _check_limits(key: tuple[str | int, ...], gate: Gate) -> None:
    is_histogram = gate.kind.shape is Shape.HISTOGRAM
    if is_histogram and (gate.quantile is None or not 0.0 < gate.quantile < 1.0):
        raise Broken(
            (*key, "quantile"), f"{gate.signal} needs a quantile between 0 and 1, got {gate.quantile}"
        )
    if not is_histogram and gate.quantile is not None:
        raise Broken((*key, "quantile"), f"{gate.signal} is no histogram; it has no quantile")
    is_ratio = gate.kind.shape is Shape.RATIO
    if gate.slo <= 0 or (is_ratio and gate.slo >= 1):
        bounds = "above 0 % and below 100 %" if is_ratio else "above 0"
        raise Broken((*key, "slo"), f"the limit of {gate.signal} must lie {bounds}, got {gate.slo:g}")
    if gate.severe <= gate.slo:
        raise Broken(
            (*key, "severe"),
            f"severe ({gate.severe:g}) must lie beyond the slo ({gate.slo:g}) of {gate.signal}",
        )
