"""The demo's policies are ones a user could have written, and a user's own plays the demo's traffic."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.errors import PolicyError
from domain.policy import JudgeName, Strategy
from domain.policy_text import parse_policy
from sentra.embedded.demo.policies import (
    ENVIRONMENT,
    LOGS,
    METRICS,
    SERVICE,
    Pace,
    borrowed_policy,
    demo_policy,
    policy_text,
)
from sentra.embedded.demo.scenarios import SCENARIOS, suits
from tests.sentra.embedded.demo.tale import TARGET

MINE = """\
service: checkout
environment: prod-eu
weights: [50, 100]
warmup: 1s
interval: 2s
window: 10s
min_step_time: 1s
gates:
  - {signal: error_rate, slo: "<= 2%", severe: ">= 30%", min_samples: 7}
on_fail: roll_back
telemetry: {metrics: theirs}
traffic: {adapter: memory, target: {}}
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(MINE)
    return path


@pytest.mark.parametrize("pace", Pace)
@pytest.mark.parametrize("strategy", Strategy)
def test_each_text_is_a_valid_policy_at_the_demos_target(pace: Pace, strategy: Strategy) -> None:
    policy = parse_policy(policy_text(pace, strategy, TARGET))
    assert (policy.service, policy.environment) == (SERVICE, ENVIRONMENT)
    assert policy.traffic.target == TARGET
    assert (policy.telemetry.metrics, policy.telemetry.logs) == (METRICS, LOGS)
    assert policy.strategy is strategy
    assert [gate.title for gate in policy.gates] == ["error_rate", "p95 latency_ms", "log_error_ratio"]


@pytest.mark.parametrize("pace", Pace)
def test_the_canary_gets_5_20_40_70_and_100_percent(pace: Pace) -> None:
    policy = parse_policy(policy_text(pace, Strategy.CANARY, TARGET))
    assert policy.weights_bp == (500, 2000, 4000, 7000, 10_000)


def test_blue_green_judges_at_0_percent_those_who_ask_for_the_preview() -> None:
    policy = parse_policy(policy_text(Pace.QUICK, Strategy.BLUE_GREEN, TARGET))
    assert policy.weights_bp == (0, 10_000)
    assert policy.match.headers == {"x-canary": "always"}


def test_real_pace_takes_longer_and_judges_by_the_same_limits() -> None:
    quick, real = (parse_policy(policy_text(pace, Strategy.CANARY, TARGET)) for pace in Pace)
    for name in ("warmup_s", "interval_s", "min_step_time_s", "max_step_time_s", "pause_timeout_s"):
        assert getattr(quick, name) < getattr(real, name), name
    assert [(gate.slo, gate.severe) for gate in quick.gates] == [
        (gate.slo, gate.severe) for gate in real.gates
    ]


def test_a_failing_canary_has_time_to_recover_at_quick_pace() -> None:
    policy = parse_policy(policy_text(Pace.QUICK, Strategy.CANARY, TARGET))
    # The bad tick leaves the window, one tick comes late, and the first pass comes before the time-out, which
    # then waits for the passes that resume it.
    first_pass_s = policy.window_s + 2 * policy.interval_s
    assert first_pass_s < policy.pause_timeout_s


def test_a_judge_asked_for_by_name_replaces_the_policys() -> None:
    text = policy_text(Pace.QUICK, Strategy.CANARY, TARGET)
    assert demo_policy(text, JudgeName.THRESHOLD) == demo_policy(text, None)


def test_a_judge_that_does_not_exist_yet_is_refused() -> None:
    with pytest.raises(PolicyError, match="evidence is not available"):
        demo_policy(policy_text(Pace.QUICK, Strategy.CANARY, TARGET), JudgeName.EVIDENCE)


def test_a_borrowed_policy_keeps_the_users_gates_and_times(mine: Path) -> None:
    policy, theirs = borrowed_policy(mine, TARGET, None), parse_policy(MINE)
    assert policy.gates == theirs.gates
    assert policy.weights_bp == theirs.weights_bp
    assert (policy.warmup_s, policy.interval_s, policy.on_fail) == (1.0, 2.0, theirs.on_fail)


def test_a_borrowed_policy_takes_the_demos_traffic_and_telemetry(mine: Path) -> None:
    policy = borrowed_policy(mine, TARGET, None)
    assert (policy.service, policy.environment) == (SERVICE, ENVIRONMENT)
    assert (policy.traffic.adapter, policy.traffic.target) == ("envoy", TARGET)
    assert policy.telemetry.metrics == METRICS


def test_a_gate_on_what_the_demo_does_not_measure_is_refused(mine: Path) -> None:
    traces = MINE.replace("error_rate", "trace_error_ratio").replace("metrics: theirs", "traces: theirs")
    mine.write_text(traces)
    with pytest.raises(PolicyError, match=r"telemetry\.traces names no source"):
        borrowed_policy(mine, TARGET, None)


def test_a_borrowed_policy_that_is_wrong_is_named_with_its_file(mine: Path) -> None:
    mine.write_text(MINE.replace("[50, 100]", "[50, 40]"))
    with pytest.raises(PolicyError, match=r"policy\.yaml.*weights must rise"):
        borrowed_policy(mine, TARGET, None)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_demos_own_policies_suit_every_scenario(name: str) -> None:
    scenario = SCENARIOS[name]
    assert suits(scenario, parse_policy(policy_text(Pace.QUICK, scenario.strategy, TARGET))) == ""


def test_a_policy_with_too_few_steps_for_a_scenario_is_told_so_in_a_sentence(mine: Path) -> None:
    policy = borrowed_policy(mine, TARGET, None)
    assert suits(SCENARIOS["late"], policy) == "late plays in step 3, the policy has 2 steps"
    assert suits(SCENARIOS["crash"], policy) == ""
