"""Policies as users write them: YAML in, :class:`~domain.policy.Policy` out, errors with the line.

The document is composed to nodes, not loaded to plain values, because nodes know where they stand. Each key
has one parser in a table; a key that is not in the table is refused with the list of those that are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, TypeVar

import yaml

from domain.errors import PolicyError
from domain.policy import (
    Broken,
    Gate,
    JudgeName,
    MatchRule,
    NoDataRule,
    OnDrift,
    OnFail,
    OnInconclusive,
    Policy,
    Strategy,
    Telemetry,
    Traffic,
    check_rules,
)
from domain.signal import Shape, signal_kind
from domain.units import parse_duration, percent_to_bp

DEFAULT_MIN_SAMPLES = 100
"""Below this many canary samples in the window a point estimate says nothing (decision machine, rule 7)."""
DEFAULT_MIN_EVENTS = 3
"""One error of twenty is no verdict: fewer bad events than this never fail a gate (rule 7)."""
DEFAULT_SEVERE_FACTOR = 5.0
"""``severe`` where the user names none, as a multiple of the SLO (rule 10)."""

MAX_COUNT = 1_000_000_000
"""More samples, events or passes than this nobody waits for."""

MAX_DEPTH = 20
"""A policy is four levels deep."""

DEFAULT_GATES: tuple[dict[str, Any], ...] = (
    {"signal": "error_rate", "slo": "<= 1%"},
    {"signal": "latency_ms", "quantile": 0.95, "slo": "<= 400"},
    {"signal": "log_error_ratio", "slo": "<= 0.5%"},
    {"signal": "trace_error_ratio", "slo": "<= 0.5%", "required": False},
)
"""What is gated when a policy names no gates, as far as its telemetry has a source for it."""

Key = tuple[str | int, ...]
Parse = Callable[[Any], Any]
E_ = TypeVar("E_", bound=Enum)

_LIMIT = re.compile(r"(?P<sign><=|<|>=|>)?\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>%|ms|s)?")


def parse_policy(text: str) -> Policy:
    """Read a policy from YAML text. Raises :class:`PolicyError` with line, value and rule."""
    lines: dict[Key, int] = {}
    document = _plain(_compose(text), (), lines)
    if not isinstance(document, dict):
        raise PolicyError(f"a policy is a mapping of keys to values, got {document!r}", line=1)
    try:
        policy = _policy(document)
        check_rules(policy)
    except Broken as broken:
        raise PolicyError(broken.message, line=_line_of(broken.key, lines)) from broken
    return policy


def _compose(text: str) -> yaml.Node:
    try:
        _refuse_bombs(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else None
        raise PolicyError(f"this is not YAML: {exc.problem}", line=line) from exc
    except yaml.YAMLError as exc:
        raise PolicyError(f"this is not YAML: {exc}") from exc
    if node is None:
        raise PolicyError("the policy is empty", line=1)
    return node


def _refuse_bombs(text: str) -> None:
    """A few lines of aliases can stand for gigabytes or for themselves, and deep nesting ends the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else None
        if isinstance(event, yaml.AliasEvent):
            raise PolicyError(f"the alias *{event.anchor} is not allowed", line=line)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise PolicyError(f"nested more than {MAX_DEPTH} deep, which no policy is", line=line)


def _plain(node: yaml.Node, key: Key, lines: dict[Key, int]) -> Any:
    """Plain values of a node tree; notes the line of each key on the way and refuses doubled keys."""
    lines[key] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        return _plain_mapping(node, key, lines)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(child, (*key, index), lines) for index, child in enumerate(node.value)]
    constructor = yaml.SafeLoader("")
    try:
        return constructor.construct_object(node)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as exc:
        # Impossible dates, numbers of five thousand digits and tags that lie fail outside YAML's own errors.
        raise PolicyError(f"cannot read {node.value[:80]!r}", line=lines[key]) from exc


def _plain_mapping(node: yaml.MappingNode, key: Key, lines: dict[Key, int]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name_node, value_node in node.value:
        name, line = str(name_node.value), name_node.start_mark.line + 1
        if name in plain:
            raise PolicyError(f"{name} is written twice", line=line)
        plain[name] = _plain(value_node, (*key, name), lines)
        lines[(*key, name)] = line
    return plain


def _line_of(key: Key, lines: Mapping[Key, int]) -> int:
    """The line of a key, or of the nearest thing around it that is written down."""
    if key == ("weights",) and key not in lines:
        key = ("steps",)
    while key and key not in lines:
        key = key[:-1]
    return lines.get(key, 1)


# Parsers of single values. Each raises ValueError with a sentence; `_parse_keys` adds the key.


def _duration(value: Any) -> float:
    seconds = parse_duration(value)
    if seconds < 0:
        raise ValueError(f"a duration cannot be negative, got {value!r}")
    return seconds


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {value!r}")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a whole number, got {value!r}")
    if abs(value) > MAX_COUNT:
        raise ValueError(f"expected a whole number of at most {MAX_COUNT}, got {len(str(value))} digits")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"expected a number, got {value!r}")
    return float(value)


def _chance(value: Any) -> float:
    """A probability: ``1%`` or ``0.01``."""
    found = _LIMIT.fullmatch(str(value).strip()) if isinstance(value, str | int | float) else None
    if found is None or found["sign"] or found["unit"] not in (None, "%") or isinstance(value, bool):
        raise ValueError(f"expected a chance such as 1%, got {value!r}")
    number = float(found["number"])
    return round(number / 100, 12) if found["unit"] else number


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, got {value!r}")
    return value


def _one_of(enum: type[E_]) -> Callable[[Any], E_]:
    def parse(value: Any) -> E_:
        try:
            return enum(value)
        except ValueError:
            known = ", ".join(str(member.value) for member in enum)
            raise ValueError(f"expected one of {known}; got {value!r}") from None

    return parse


def _percent_list(value: Any) -> list[float]:
    is_numbers = isinstance(value, list) and all(
        isinstance(item, int | float) and not isinstance(item, bool) for item in value
    )
    if not is_numbers or not value:
        raise ValueError(f"expected a list of percentages, such as [5, 15, 80]; got {value!r}")
    return [float(item) for item in value]


def _counts(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list of step numbers, got {value!r}")
    return tuple(_count(item) for item in value)


def _names(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError(f"expected names and text values, got {value!r}")
    return value


def _target(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(
        isinstance(item, str | int | float | bool) for item in value.values()
    ):
        raise ValueError(f"expected names and plain values, got {value!r}")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected a mapping, got {value!r}")
    return value


def _sequence(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list, got {value!r}")
    return value


def parse_limit(text: object, *, shape: Shape, sign: str) -> float:
    """A limit such as ``"<= 1%"``, ``"<= 400"``, ``"400ms"``: a ratio, or milliseconds for histograms.

    ``sign`` is ``"<"`` for an SLO (at most) and ``">"`` for a severe limit (at least).

    >>> parse_limit("<= 1%", shape=Shape.RATIO, sign="<")
    0.01
    """
    found = _LIMIT.fullmatch(str(text).strip()) if isinstance(text, str | int | float) else None
    example = '"<= 400"' if shape is Shape.HISTOGRAM else '"<= 1%"'
    if found is None or isinstance(text, bool):
        raise ValueError(f"cannot read the limit {text!r}; write it like {example.replace('<', sign)}")
    if found["sign"] and not found["sign"].startswith(sign):
        raise ValueError(f"the limit {text!r} points the wrong way; write {sign}=")
    number, unit = float(found["number"]), found["unit"]
    if math.isinf(number):
        raise ValueError(f"the limit has {len(found['number'])} digits; nothing is that large")
    if shape is Shape.HISTOGRAM:
        if unit == "%":
            raise ValueError(f"the limit {text!r} is a percentage, but latencies are limited in ms")
        return number * 1000 if unit == "s" else number
    if unit in ("ms", "s"):
        raise ValueError(f"the limit {text!r} is a time, but a ratio is limited in percent")
    # 0.7 / 100 is 0.006999999999999999: exactly 0.7 % must keep a limit of 0.7 %.
    return round(number / 100, 12) if unit == "%" else number


_POLICY_KEYS: dict[str, tuple[str, Parse]] = {
    "service": ("service", _text),
    "environment": ("environment", _text),
    "strategy": ("strategy", _one_of(Strategy)),
    "judge": ("judge", _one_of(JudgeName)),
    "warmup": ("warmup_s", _duration),
    "interval": ("interval_s", _duration),
    "window": ("window_s", _duration),
    "pass_count": ("pass_count", _count),
    "fail_count": ("fail_count", _count),
    "alpha": ("alpha", _chance),
    "beta": ("beta", _chance),
    "min_ratio": ("min_ratio", _number),
    "min_step_time": ("min_step_time_s", _duration),
    "max_step_time": ("max_step_time_s", _duration),
    "max_rollout_time": ("max_rollout_time_s", _duration),
    "pause_timeout": ("pause_timeout_s", _duration),
    "pause_alert_after": ("pause_alert_after_s", _duration),
    "verify_timeout": ("verify_timeout_s", _duration),
    "keep_stable_for": ("keep_stable_for_s", _duration),
    "auto_resume": ("auto_resume", _flag),
    "approvals": ("approvals", _counts),
    "on_fail": ("on_fail", _one_of(OnFail)),
    "on_inconclusive": ("on_inconclusive", _one_of(OnInconclusive)),
    "on_drift": ("on_drift", _one_of(OnDrift)),
    "on_overtime": ("on_overtime", _one_of(OnFail)),
}
_OTHER_KEYS: dict[str, Parse] = {
    "steps": _percent_list,
    "weights": _percent_list,
    "min_samples": _count,
    "min_events": _count,
    "gates": _sequence,
    "on_no_data": _mapping,
    "match": _mapping,
    "telemetry": _mapping,
    "traffic": _mapping,
}
POLICY_KEYS = (*_POLICY_KEYS, *_OTHER_KEYS)
"""Every key a policy may have."""

_GATE_KEYS: dict[str, Parse] = {
    "signal": _text,
    "quantile": float,
    "slo": lambda value: value,
    "severe": lambda value: value,
    "required": _flag,
    "window": _duration,
    "min_samples": _count,
    "min_events": _count,
}
GATE_KEYS = tuple(_GATE_KEYS)
"""Every key a gate may have."""


def _parse_keys(raw: Mapping[str, Any], parsers: Mapping[str, Parse], at: Key, what: str) -> dict[str, Any]:
    parsed = {}
    for name, value in raw.items():
        if name not in parsers:
            raise Broken((*at, name), f"{what} has no key {name!r}; known are {', '.join(parsers)}")
        try:
            parsed[name] = parsers[name](value)
        except (ValueError, TypeError, OverflowError) as exc:
            raise Broken((*at, name), f"{'.'.join(map(str, (*at, name)))}: {exc}") from exc
    return parsed


def _require(parsed: Mapping[str, Any], names: tuple[str, ...], at: Key, what: str) -> None:
    for name in names:
        if name not in parsed:
            raise Broken(at, f"{what} needs the key {name!r}")


def _policy(document: Mapping[str, Any]) -> Policy:
    parsers = {name: parse for name, (_, parse) in _POLICY_KEYS.items()} | _OTHER_KEYS
    parsed = _parse_keys(document, parsers, (), "a policy")
    _require(parsed, ("service", "environment", "traffic"), (), "a policy")
    fields = {field: parsed[name] for name, (field, _) in _POLICY_KEYS.items() if name in parsed}
    defaults = _GateDefaults(
        window_s=parsed.get("window", Policy.__struct_defaults__[_field_default("window_s")]),
        min_samples=parsed.get("min_samples", DEFAULT_MIN_SAMPLES),
        min_events=parsed.get("min_events", DEFAULT_MIN_EVENTS),
    )
    telemetry = _telemetry(parsed.get("telemetry", {}))
    gates = parsed["gates"] if "gates" in parsed else _default_gates(telemetry)
    return Policy(
        weights_bp=_weights(parsed),
        gates=tuple(_gate(index, raw, defaults) for index, raw in enumerate(gates)),
        traffic=_traffic(parsed["traffic"]),
        telemetry=telemetry,
        on_no_data=_no_data(parsed.get("on_no_data", {})),
        match=_match(parsed.get("match", {})),
        **fields,
    )


def _default_gates(telemetry: Telemetry) -> list[dict[str, Any]]:
    """The gates of a policy that names none: those of ``DEFAULT_GATES`` whose source is known."""
    return [gate for gate in DEFAULT_GATES if getattr(telemetry, signal_kind(gate["signal"]).channel.value)]


def _field_default(field: str) -> int:
    """Position of a field's default among a struct's defaults (they align with the last fields)."""
    fields = Policy.__struct_fields__
    return fields.index(field) - (len(fields) - len(Policy.__struct_defaults__))


class _GateDefaults:
    def __init__(self, *, window_s: float, min_samples: int, min_events: int) -> None:
        self.window_s = window_s
        self.min_samples = min_samples
        self.min_events = min_events


def _weights(parsed: Mapping[str, Any]) -> tuple[int, ...]:
    if "steps" in parsed and "weights" in parsed:
        raise Broken(("weights",), "say steps (added shares) or weights (totals), not both")
    if "weights" in parsed:
        return _basis_points(parsed["weights"], ("weights",))
    if parsed.get("strategy") is Strategy.BLUE_GREEN and "steps" not in parsed:
        return (0, 10_000)
    _require(parsed, ("steps",), (), "a policy without weights")
    steps: list[float] = parsed["steps"]
    if any(step <= 0 for step in steps):
        raise Broken(("steps",), f"every step must add traffic, got {steps}")
    if abs(sum(steps) - 100) > 1e-9:
        raise Broken(("steps",), f"steps are shares added one by one and must sum to 100, got {sum(steps):g}")
    return _basis_points([sum(steps[: index + 1]) for index in range(len(steps))], ("steps",))


def _basis_points(percents: list[float], key: Key) -> tuple[int, ...]:
    try:
        return tuple(percent_to_bp(percent) for percent in percents)
    except ValueError as exc:
        raise Broken(key, str(exc)) from exc


def _gate(index: int, raw: Any, defaults: _GateDefaults) -> Gate:
    key: Key = ("gates", index)
    if not isinstance(raw, dict):
        raise Broken(key, f"a gate is a mapping such as {{signal: error_rate, slo: '<= 1%'}}, got {raw!r}")
    parsed = _parse_keys(raw, _GATE_KEYS, key, "a gate")
    _require(parsed, ("signal", "slo"), key, "a gate")
    slo, severe = _limits(key, parsed)
    return Gate(
        signal=parsed["signal"],
        slo=slo,
        severe=severe,
        quantile=parsed.get("quantile"),
        required=parsed.get("required", True),
        window_s=parsed.get("window", defaults.window_s),
        min_samples=parsed.get("min_samples", defaults.min_samples),
        min_events=parsed.get("min_events", defaults.min_events),
    )


def _limits(key: Key, parsed: Mapping[str, Any]) -> tuple[float, float]:
    try:
        shape = signal_kind(parsed["signal"]).shape
    except ValueError as exc:
        raise Broken((*key, "signal"), str(exc)) from exc
    slo = _limit(key, "slo", parsed["slo"], shape, "<")
    if "severe" in parsed:
        return slo, _limit(key, "severe", parsed["severe"], shape, ">")
    # A ratio cannot exceed 1; half way there is where five times a loose SLO would be meaningless.
    severe = slo * DEFAULT_SEVERE_FACTOR
    return slo, min(severe, (1.0 + slo) / 2) if shape is Shape.RATIO else severe


def _limit(key: Key, name: str, text: Any, shape: Shape, sign: str) -> float:
    try:
        return parse_limit(text, shape=shape, sign=sign)
    except ValueError as exc:
        raise Broken((*key, name), str(exc)) from exc


def _traffic(raw: Mapping[str, Any]) -> Traffic:
    parsed = _parse_keys(raw, {"adapter": _text, "target": _target}, ("traffic",), "traffic")
    _require(parsed, ("adapter", "target"), ("traffic",), "traffic")
    return Traffic(**parsed)


def _telemetry(raw: Mapping[str, Any]) -> Telemetry:
    parsers = {"metrics": _text, "logs": _text, "traces": _text}
    return Telemetry(**_parse_keys(raw, parsers, ("telemetry",), "telemetry"))


def _no_data(raw: Mapping[str, Any]) -> NoDataRule:
    parsed = _parse_keys(raw, {"hold": _duration, "then": _one_of(OnFail)}, ("on_no_data",), "on_no_data")
    if "hold" in parsed:
        parsed["hold_s"] = parsed.pop("hold")
    return NoDataRule(**parsed)


def _match(raw: Mapping[str, Any]) -> MatchRule:
    parsers = {"headers": _names, "cookies": _names, "path": _text}
    return MatchRule(**_parse_keys(raw, parsers, ("match",), "match"))
