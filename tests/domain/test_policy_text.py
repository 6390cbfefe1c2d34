"""Policies as users write them: every key is read, every broken rule is named with its line and value."""

from __future__ import annotations

import re

import msgspec
import pytest

from domain.errors import PolicyError
from domain.policy import (
    JudgeName,
    NoDataRule,
    OnDrift,
    OnFail,
    OnInconclusive,
    Policy,
    Strategy,
    Telemetry,
)
from domain.policy_text import DEFAULT_GATES, GATE_KEYS, POLICY_KEYS, parse_limit, parse_policy
from domain.signal import Shape

LEAST = """\
service: checkout
environment: prod-eu
steps: [5, 15, 20, 30, 30]
telemetry: {metrics: prom}
traffic: {adapter: memory, target: {route: checkout}}
"""

ALL = """\
service: checkout
environment: prod-eu
strategy: canary
steps: [5, 15, 80]
judge: threshold
warmup: 45s
interval: 10s
window: 30s
pass_count: 4
fail_count: 5
alpha: 0.5%
beta: 0.1
min_ratio: 1.5
min_samples: 50
min_events: 2
min_step_time: 90s
max_step_time: 20m
max_rollout_time: 2h
pause_timeout: 15m
pause_alert_after: 1m30s
verify_timeout: 500ms
keep_stable_for: 1h
auto_resume: false
approvals: [3]
on_fail: roll_back
on_inconclusive: advance_unproven
on_no_data: {hold: 2m, then: roll_back}
on_drift: reassert
on_overtime: roll_back
gates:
  - {signal: error_rate, slo: "<= 1%", severe: ">= 8%", window: 20s, min_samples: 10, min_events: 1}
  - {signal: latency_ms, quantile: 0.95, slo: "<= 400"}
  - {signal: "custom:refund_failures", slo: "< 0.5%", required: false}
match: {headers: {x-canary: always}, cookies: {beta: "1"}, path: /checkout}
telemetry: {metrics: prom, logs: loki, traces: tempo}
traffic: {adapter: gateway_api, target: {namespace: shop, route: checkout, port: 80}}
"""


def changed(**lines: str) -> str:
    """The least policy with keys replaced or added."""
    kept = [line for line in LEAST.splitlines() if line.split(":")[0] not in lines]
    return "\n".join([*kept, *(f"{key}: {value}" for key, value in lines.items() if value)]) + "\n"


def gated(gate: str) -> str:
    """The least policy with this gate and no other; it is on line 6."""
    return f"{LEAST}gates:\n  - {gate}\n"


def refusal(text: str) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    return caught.value


# What is read.


def test_every_key_is_read() -> None:
    policy = parse_policy(ALL)
    assert policy.weights_bp == (500, 2000, 10_000)
    assert (policy.service, policy.environment) == ("checkout", "prod-eu")
    assert (policy.strategy, policy.judge) == (Strategy.CANARY, JudgeName.THRESHOLD)
    assert (policy.warmup_s, policy.interval_s, policy.window_s) == (45.0, 10.0, 30.0)
    assert (policy.pass_count, policy.approvals, policy.auto_resume) == (4, (3,), False)
    assert (policy.fail_count, policy.alpha, policy.beta, policy.min_ratio) == (5, 0.005, 0.1, 1.5)
    assert (policy.min_step_time_s, policy.max_step_time_s, policy.max_rollout_time_s) == (90, 1200, 7200)
    assert (policy.pause_timeout_s, policy.pause_alert_after_s) == (900.0, 90.0)
    assert (policy.verify_timeout_s, policy.keep_stable_for_s) == (0.5, 3600.0)
    assert (policy.on_fail, policy.on_overtime) == (OnFail.ROLL_BACK, OnFail.ROLL_BACK)
    assert (policy.on_inconclusive, policy.on_drift) == (OnInconclusive.ADVANCE_UNPROVEN, OnDrift.REASSERT)
    assert policy.on_no_data == NoDataRule(hold_s=120.0, then=OnFail.ROLL_BACK)
    assert policy.match.headers == {"x-canary": "always"}
    assert (policy.match.cookies, policy.match.path) == ({"beta": "1"}, "/checkout")
    assert policy.telemetry == Telemetry(metrics="prom", logs="loki", traces="tempo")
    assert policy.traffic.adapter == "gateway_api"
    assert policy.traffic.target == {"namespace": "shop", "route": "checkout", "port": 80}


def test_every_key_of_a_gate_is_read_and_the_others_fall_back_to_the_policys() -> None:
    first, second, third = parse_policy(ALL).gates
    assert (first.signal, first.slo, first.severe, first.required) == ("error_rate", 0.01, 0.08, True)
    assert (first.window_s, first.min_samples, first.min_events) == (20.0, 10, 1)
    assert (second.signal, second.quantile, second.slo, second.severe) == ("latency_ms", 0.95, 400.0, 2000.0)
    assert (second.window_s, second.min_samples, second.min_events) == (30.0, 50, 2)
    assert (third.signal, third.slo, third.required) == ("custom:refund_failures", 0.005, False)


def test_this_test_leaves_no_key_out() -> None:
    written = set(re.findall(r"^(\w+):", ALL, re.MULTILINE))
    assert set(POLICY_KEYS) - written == {"weights"}
    assert set(re.findall(r"(\w+):", ALL.split("gates:")[1].split("match:")[0])) - {"custom"} == set(
        GATE_KEYS
    )


def test_what_is_not_said_has_the_documented_defaults() -> None:
    policy = parse_policy(LEAST)
    assert (policy.strategy, policy.judge) == (Strategy.CANARY, JudgeName.EVIDENCE)
    assert (policy.warmup_s, policy.interval_s, policy.window_s, policy.pass_count) == (30, 5, 60, 3)
    assert (policy.fail_count, policy.alpha, policy.beta, policy.min_ratio) == (3, 0.01, 0.05, 1.25)
    assert (policy.min_step_time_s, policy.max_step_time_s, policy.max_rollout_time_s) == (60, 900, 86_400)
    assert (policy.pause_timeout_s, policy.pause_alert_after_s) == (600, 300)
    assert (policy.on_fail, policy.on_inconclusive) == (OnFail.PAUSE, OnInconclusive.PAUSE)
    assert policy.on_no_data == NoDataRule(hold_s=60.0, then=OnFail.PAUSE)
    assert (policy.on_drift, policy.auto_resume, policy.approvals) == (OnDrift.PAUSE, True, ())
    assert not policy.match


def test_a_policy_without_gates_gets_the_standard_ones_that_it_has_sources_for() -> None:
    assert [gate.signal for gate in parse_policy(LEAST).gates] == ["error_rate", "latency_ms"]
    gates = parse_policy(changed(telemetry="{metrics: prom, logs: loki, traces: tempo}")).gates
    assert [gate.title for gate in gates] == [
        "error_rate",
        "p95 latency_ms",
        "log_error_ratio",
        "trace_error_ratio",
    ]
    assert [gate.slo for gate in gates] == [0.01, 400.0, 0.005, 0.005]
    assert [gate.required for gate in gates] == [True, True, True, False]
    assert {(gate.min_samples, gate.min_events, gate.window_s) for gate in gates} == {(100, 3, 60.0)}
    assert len(gates) == len(DEFAULT_GATES)


def test_severe_is_five_times_the_slo_unless_said_and_never_beyond_everything() -> None:
    assert parse_policy(LEAST).gates[0].severe == pytest.approx(0.05)
    loose = parse_policy(gated('{signal: error_rate, slo: "<= 60%"}')).gates[0]
    assert loose.slo < loose.severe < 1.0


def test_steps_are_added_up_and_weights_are_taken_as_they_are() -> None:
    assert parse_policy(LEAST).weights_bp == (500, 2000, 4000, 7000, 10_000)
    assert parse_policy(changed(steps="", weights="[5, 20, 40, 70, 100]")) == parse_policy(LEAST)


@pytest.mark.parametrize("steps", ["[33.33, 33.33, 33.34]", "[0.1, 0.2, 99.7]", "[14.29, 85.71]"])
def test_steps_that_no_float_adds_up_exactly_are_taken(steps: str) -> None:
    assert parse_policy(changed(steps=steps)).weights_bp[-1] == 10_000


def test_blue_green_needs_no_weights() -> None:
    policy = parse_policy(changed(steps="", strategy="blue_green"))
    assert policy.weights_bp == (0, 10_000)


def test_a_first_weight_of_0_is_allowed_where_a_match_brings_traffic() -> None:
    policy = parse_policy(changed(steps="", weights="[0, 100]", match="{headers: {x-canary: always}}"))
    assert policy.weights_bp == (0, 10_000)


def test_the_same_policy_has_the_same_version_however_it_is_written() -> None:
    assert parse_policy(LEAST).version == parse_policy(changed(warmup="30s", interval="5000ms")).version
    assert parse_policy(LEAST).version != parse_policy(changed(warmup="31s")).version


@pytest.mark.parametrize(
    ("text", "shape", "limit"),
    [
        ("<= 1%", Shape.RATIO, 0.01),
        ("<1 %", Shape.RATIO, 0.01),
        ("0.7%", Shape.RATIO, 0.007),
        ("<= 0.29%", Shape.RATIO, 0.0029),
        ("<= 0.005", Shape.RATIO, 0.005),
        (0.005, Shape.RATIO, 0.005),
        ("<= 400", Shape.HISTOGRAM, 400.0),
        ("<= 400ms", Shape.HISTOGRAM, 400.0),
        ("<= 1.5s", Shape.HISTOGRAM, 1500.0),
        (400, Shape.HISTOGRAM, 400.0),
    ],
)
def test_limits_are_read_as_the_numbers_they_say(text: object, shape: Shape, limit: float) -> None:
    assert parse_limit(text, shape=shape, sign="<") == limit


# What is refused: text, line, and what the sentence must say.

REFUSED = {
    "empty": ("", 1, "empty"),
    "only_a_comment": ("# nothing\n", 1, "empty"),
    "a_list": ("- service: checkout\n", 1, "mapping"),
    "a_word": ("checkout\n", 1, "mapping"),
    "null": ("~\n", 1, "mapping"),
    "two_documents": (LEAST + "---\n" + LEAST, None, "not YAML"),
    "unclosed": ("service: [a\nsteps: {\n", None, "not YAML"),
    "a_tab": ("service: a\n\tsteps: b\n", 2, "not YAML"),
    "a_control_character": ("service: \x01\n", None, "not YAML"),
    "unknown_key": (LEAST + "bake_time: 5m\n", 6, "bake_time.*known are.*keep_stable_for"),
    "unknown_gate_key": (gated('{signal: error_rate, slo: "<= 1%", limit: 3}'), 7, "limit.*min_samples"),
    "unknown_match_key": (changed(match="{header: {a: b}}"), 6, "header.*headers"),
    "unknown_telemetry_key": (changed(telemetry="{metric: prom}"), 5, "metric.*metrics"),
    "unknown_traffic_key": (changed(traffic="{adaptor: x}"), 5, "adaptor.*adapter"),
    "unknown_no_data_key": (changed(on_no_data="{wait: 3s}"), 6, "wait.*hold"),
    "doubled_key": (LEAST + "service: other\n", 6, "service is written twice"),
    "doubled_inner_key": (changed(telemetry="{metrics: a, metrics: b}"), 5, "metrics is written twice"),
    "no_service": (changed(service=""), 1, "needs the key 'service'"),
    "no_traffic": (changed(traffic=""), 1, "needs the key 'traffic'"),
    "no_adapter": (changed(traffic="{target: {a: b}}"), 5, "needs the key 'adapter'"),
    "empty_service": (changed(service='" "'), 5, "service must not be empty"),
    "empty_adapter": (changed(traffic='{adapter: "", target: {a: b}}'), 5, "adapter"),
    "a_number_as_service": (changed(service="42"), 5, "service: expected text, got 42"),
    "no_steps": (changed(steps=""), 1, "needs the key 'steps'"),
    "steps_short_of_100": (changed(steps="[5, 15]"), 5, "sum to 100, got 20"),
    "steps_beyond_100": (changed(steps="[50, 60]"), 5, "sum to 100, got 110"),
    "a_step_of_0": (changed(steps="[0, 100]"), 5, "must add traffic"),
    "a_negative_step": (changed(steps="[-10, 110]"), 5, "must add traffic"),
    "a_step_finer_than_a_basis_point": (changed(steps="[0.001, 99.999]"), 5, "multiple of 0.01"),
    "empty_steps": (changed(steps="[]"), 5, "list of percentages"),
    "steps_as_text": (changed(steps="[a, b]"), 5, "list of percentages"),
    "steps_as_flags": (changed(steps="[true, false]"), 5, "list of percentages"),
    "infinite_step": (changed(steps="[.inf]"), 5, "got"),
    "nan_step": (changed(steps="[.nan, 100]"), 5, "weight|percent"),
    "infinite_weight": (changed(steps="", weights="[5, .inf]"), 5, "weight|percent"),
    "falling_weights": (changed(steps="", weights="[20, 10, 100]"), 5, r"rise.*\[20, 10, 100\]"),
    "equal_weights": (changed(steps="", weights="[20, 20, 100]"), 5, "rise"),
    "weights_short_of_100": (changed(steps="", weights="[5, 50]"), 5, "100 %, got 50 %"),
    "weights_beyond_100": (changed(steps="", weights="[5, 150]"), 5, "15000"),
    "steps_and_weights": (changed(weights="[100]"), 6, "not both"),
    "first_weight_of_0": (changed(steps="", weights="[0, 100]"), 5, "nothing reaches the canary"),
    "blue_green_weights": (
        changed(steps="", strategy="blue_green", weights="[0, 50, 100]"),
        6,
        r"blue_green.*\[0, 100\]",
    ),
    "blue_green_steps": (changed(strategy="blue_green"), 3, "blue_green"),
    "a_bare_number_as_duration": (changed(warmup="30"), 6, "warmup: .*unit.*got 30"),
    "a_negative_duration": (changed(warmup="-30s"), 6, "warmup"),
    "a_duration_in_weeks": (changed(warmup="2w"), 6, "warmup.*got '2w'"),
    "an_empty_duration": (changed(warmup='""'), 6, "warmup"),
    "an_endless_duration": (changed(warmup="9" * 400 + "s"), 6, "warmup"),
    "interval_too_short": (changed(interval="500ms"), 6, "1..60 whole seconds, got 500ms"),
    "interval_too_long": (changed(interval="2m"), 6, "1..60 whole seconds, got 2m"),
    "interval_not_whole": (changed(interval="2500ms"), 6, "whole seconds"),
    "interval_0": (changed(interval="0"), 6, "whole seconds"),
    "window_shorter_than_a_tick": (changed(interval="10s", window="5s"), None, "shorter than one tick"),
    "gate_window_shorter_than_a_tick": (
        gated('{signal: error_rate, slo: "<= 1%", window: 2s}'),
        7,
        "window of 2s is shorter than one tick .interval 5s.",
    ),
    "pass_count_0": (changed(pass_count="0"), 6, "at least 1, got 0"),
    "pass_count_as_text": (changed(pass_count="three"), 6, "whole number, got 'three'"),
    "pass_count_as_flag": (changed(pass_count="true"), 6, "whole number"),
    "pass_count_broken": (changed(pass_count="2.5"), 6, "whole number"),
    "pass_count_beyond_floats": (changed(pass_count="9" * 400), 6, "pass_count"),
    "pass_count_beyond_integers": (changed(pass_count="9" * 5000), 6, "read|pass_count"),
    "min_samples_0": (changed(min_samples="0"), None, "min_samples must be at least 1, got 0"),
    "min_events_0": (changed(min_events="0"), None, "min_events must be at least 1, got 0"),
    "step_times_crossed": (
        changed(min_step_time="2m", max_step_time="1m"),
        7,
        "max_step_time .1m. must not be shorter than min_step_time .2m.",
    ),
    "step_too_short_to_pass": (
        changed(warmup="5m", max_step_time="5m", min_step_time="0s"),
        7,
        "too short to warm up and pass 3 times .5m15s.",
    ),
    "verify_timeout_0": (changed(verify_timeout="0s"), 6, "verify_timeout"),
    "a_flag_as_text": (changed(auto_resume="maybe"), 6, "true or false, got 'maybe'"),
    "an_approval_beyond_the_steps": (changed(approvals="[6]"), 6, "1..5, got 6"),
    "an_approval_of_step_0": (changed(approvals="[0]"), 6, "1..5, got 0"),
    "approvals_as_number": (changed(approvals="2"), 6, "list of step numbers, got 2"),
    "unknown_on_fail": (changed(on_fail="ignore"), 6, "one of pause, roll_back; got 'ignore'"),
    "unknown_strategy": (changed(strategy="rainbow"), 6, "canary, blue_green; got 'rainbow'"),
    "unknown_judge": (changed(judge="kayenta"), 6, "threshold, evidence; got 'kayenta'"),
    "fail_count_0": (changed(fail_count="0"), 6, "fail_count must be at least 1, got 0"),
    "alpha_0": (changed(alpha="0%"), 6, "alpha must lie in 0.0001 %..20 %, got 0 %"),
    "alpha_30": (changed(alpha="30%"), 6, "alpha must lie in .*, got 30 %"),
    "alpha_signed": (changed(alpha='"<= 1%"'), 6, "alpha: expected a chance such as 1%"),
    "alpha_in_words": (changed(alpha="rarely"), 6, "alpha: expected a chance"),
    "beta_60": (changed(beta="0.6"), 6, "beta must lie in 0.0001 %..50 %, got 60 %"),
    "min_ratio_half": (changed(min_ratio="0.5"), 6, "min_ratio must lie in 1..100, got 0.5"),
    "min_ratio_endless": (changed(min_ratio=".inf"), 6, "min_ratio: expected a number"),
    "on_no_data_as_word": (changed(on_no_data="pause"), 6, "expected a mapping, got 'pause'"),
    "gates_as_mapping": (changed(gates="{signal: error_rate}"), 6, "expected a list"),
    "no_gates": (changed(gates="[]"), 6, "at least one required gate"),
    "only_optional_gates": (
        gated('{signal: error_rate, slo: "<= 1%", required: false}'),
        6,
        "at least one required gate",
    ),
    "no_telemetry": (changed(telemetry=""), 1, "at least one required gate"),
    "a_gate_as_word": (gated("error_rate"), 7, "a gate is a mapping.*got 'error_rate'"),
    "unknown_signal": (gated('{signal: errors, slo: "<= 1%"}'), 7, "unknown signal 'errors'.*error_rate"),
    "a_nameless_custom_signal": (gated('{signal: "custom:", slo: "<= 1%"}'), 7, "unknown signal 'custom:'"),
    "no_slo": (gated("{signal: error_rate}"), 7, "needs the key 'slo'"),
    "no_signal": (gated('{slo: "<= 1%"}'), 7, "needs the key 'signal'"),
    "doubled_gate": (
        LEAST + 'gates:\n  - {signal: error_rate, slo: "<= 1%"}\n  - {signal: error_rate, slo: "<= 2%"}\n',
        8,
        "error_rate is gated twice",
    ),
    "missing_source": (
        gated('{signal: log_error_ratio, slo: "<= 1%"}'),
        7,
        "log_error_ratio comes from logs, but telemetry.logs names no source",
    ),
    "unreadable_limit": (gated('{signal: error_rate, slo: "about 1%"}'), 7, "cannot read.*'about 1%'"),
    "a_limit_as_flag": (gated("{signal: error_rate, slo: true}"), 7, "cannot read the limit True"),
    "a_limit_as_list": (gated("{signal: error_rate, slo: [1]}"), 7, "cannot read the limit"),
    "a_negative_limit": (gated('{signal: error_rate, slo: "-1%"}'), 7, "cannot read the limit"),
    "an_endless_limit": (gated("{signal: latency_ms, quantile: 0.5, slo: " + "9" * 400 + "}"), 7, "limit"),
    "slo_the_wrong_way": (gated('{signal: error_rate, slo: ">= 1%"}'), 7, "wrong way; write <="),
    "severe_the_wrong_way": (
        gated('{signal: error_rate, slo: "<= 1%", severe: "<= 5%"}'),
        7,
        "wrong way; write >=",
    ),
    "severe_below_slo": (
        gated('{signal: error_rate, slo: "<= 5%", severe: ">= 1%"}'),
        7,
        "severe .0.01. must lie beyond the slo .0.05.",
    ),
    "severe_at_slo": (gated('{signal: error_rate, slo: "<= 5%", severe: ">= 5%"}'), 7, "beyond the slo"),
    "slo_0": (gated('{signal: error_rate, slo: "<= 0%"}'), 7, "above 0 % and below 100 %, got 0"),
    "slo_100": (gated('{signal: error_rate, slo: "<= 100%"}'), 7, "below 100 %, got 1"),
    "slo_1_without_percent": (gated("{signal: error_rate, slo: 1}"), 7, "below 100 %, got 1"),
    "latency_in_percent": (gated('{signal: latency_ms, quantile: 0.9, slo: "<= 4%"}'), 7, "limited in ms"),
    "ratio_in_ms": (gated('{signal: error_rate, slo: "<= 4ms"}'), 7, "limited in percent"),
    "latency_without_quantile": (gated('{signal: latency_ms, slo: "<= 400"}'), 7, "needs a quantile"),
    "quantile_95": (gated('{signal: latency_ms, quantile: 95, slo: "<= 400"}'), 7, "between 0 and 1, got 95"),
    "quantile_nan": (gated('{signal: latency_ms, quantile: .nan, slo: "<= 400"}'), 7, "between 0 and 1"),
    "quantile_word": (gated('{signal: latency_ms, quantile: high, slo: "<= 400"}'), 7, "quantile"),
    "quantile_endless": (
        gated("{signal: latency_ms, slo: 4, quantile: " + "9" * 400 + "}"),
        7,
        "quantile",
    ),
    "quantile_of_a_ratio": (gated('{signal: error_rate, quantile: 0.9, slo: "<= 1%"}'), 7, "has no quantile"),
    "headers_as_list": (changed(match="{headers: [a]}"), 6, "names and text values"),
    "a_header_as_number": (changed(match="{headers: {a: 1}}"), 6, "names and text values"),
    "a_nested_target": (changed(traffic="{adapter: x, target: {a: {b: c}}}"), 5, "plain values"),
    "an_impossible_date": (changed(service="2020-13-45"), 5, "2020-13-45"),
    "a_foreign_tag": (changed(service="!!python/object:os.system x"), 5, "cannot read"),
    "a_lying_tag": (changed(service="!!bool maybe"), 5, "cannot read"),
    "a_list_as_key": (LEAST + "? [a, b]\n: c\n", 6, "key"),
    "an_alias": (LEAST + "warmup: &a 30s\nmin_step_time: *a\n", 7, "alias"),
    "a_list_that_holds_itself": (changed(steps="&a [*a]"), 5, "alias"),
    "a_bottomless_pit": ("steps: " + "[" * 20_000, 1, "20 deep"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_policy_is_refused_with_line_value_and_rule(name: str) -> None:
    text, line, rule = REFUSED[name]
    error = refusal(text)
    assert re.search(rule, str(error), re.DOTALL), str(error)
    if line is not None:
        assert error.line == line, str(error)
        assert str(error).startswith(f"line {line}: ")


def test_a_policy_without_a_first_line_is_still_refused_at_a_line_that_exists() -> None:
    for text, _, _ in REFUSED.values():
        line = refusal(text).line
        assert line is None or 1 <= line <= len(text.splitlines()) + 1


def test_a_policy_that_was_read_stays_readable_from_its_records() -> None:

    for policy in (parse_policy(ALL), parse_policy(LEAST)):
        assert msgspec.json.decode(msgspec.json.encode(policy), type=Policy) == policy
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(policy), type=Policy) == policy
