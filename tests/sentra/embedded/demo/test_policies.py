"""The demo's policies are ones a user could have written, and a user's own plays the demo's traffic."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.errors import PolicyError
from domain.policy import JudgeName, Strategy
from domain.policy_text import parse_policy
from domain.units import FULL_BP
from scorers.evidence.margins import margin_window
from scorers.evidence.plan import Known, plan_of
from sentra.embedded.demo.policies import (
    ENVIRONMENT,
    LOGS,
    METRICS,
    PLANS,
    SERVICE,
    Pace,
    borrowed_policy,
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
@pytest.mark.parametrize("judge", JudgeName)
def test_each_text_is_a_valid_policy_at_the_demos_target(
    pace: Pace, strategy: Strategy, judge: JudgeName
) -> None:
    policy = parse_policy(policy_text(pace, strategy, TARGET, judge))
    assert policy.judge is judge
    assert (policy.service, policy.environment) == (SERVICE, ENVIRONMENT)
    assert policy.traffic.target == TARGET
    assert (policy.telemetry.metrics, policy.telemetry.logs) == (METRICS, LOGS)
    assert policy.strategy is strategy
    assert [gate.title for gate in policy.gates] == ["error_rate", "p95 latency_ms", "log_error_ratio"]


@pytest.mark.parametrize("pace", Pace)
def test_the_threshold_judges_canary_gets_5_20_40_70_and_100_percent(pace: Pace) -> None:
    policy = parse_policy(policy_text(pace, Strategy.CANARY, TARGET, JudgeName.THRESHOLD))
    assert policy.weights_bp == (500, 2000, 4000, 7000, 10_000)


def test_evidence_at_quick_pace_begins_with_a_fifth_of_more_traffic() -> None:
    policy = parse_policy(policy_text(Pace.QUICK, Strategy.CANARY, TARGET, JudgeName.EVIDENCE))
    assert policy.weights_bp == (2000, 4000, 7000, 10_000)
    assert PLANS[Pace.QUICK, JudgeName.EVIDENCE].rps == 2 * PLANS[Pace.QUICK, JudgeName.THRESHOLD].rps


def test_at_quick_pace_the_margin_for_cold_starts_is_over_within_ten_seconds() -> None:
    policy = parse_policy(policy_text(Pace.QUICK, Strategy.CANARY, TARGET, JudgeName.EVIDENCE))
    assert margin_window(policy.warmup_s) == 10.0


def test_blue_green_judges_at_0_percent_those_who_ask_for_the_preview() -> None:
    policy = parse_policy(policy_text(Pace.QUICK, Strategy.BLUE_GREEN, TARGET, JudgeName.EVIDENCE))
    assert policy.weights_bp == (0, 10_000)
    assert policy.match.headers == {"x-canary": "always"}


@pytest.mark.parametrize("judge", JudgeName)
def test_real_pace_takes_longer_and_judges_by_the_same_limits(judge: JudgeName) -> None:
    quick, real = (parse_policy(policy_text(pace, Strategy.CANARY, TARGET, judge)) for pace in Pace)
    for name in ("warmup_s", "interval_s", "min_step_time_s", "max_step_time_s", "pause_timeout_s"):
        assert getattr(quick, name) < getattr(real, name), name
    assert [(gate.slo, gate.severe) for gate in quick.gates] == [
        (gate.slo, gate.severe) for gate in real.gates
    ]


def test_a_failing_canary_has_time_to_recover_at_quick_pace() -> None:
    policy = parse_policy(policy_text(Pace.QUICK, Strategy.CANARY, TARGET, JudgeName.THRESHOLD))
    # The bad tick leaves the window, one tick comes late, and the first pass comes before the time-out, which
    # then waits for the passes that resume it.
    first_pass_s = policy.window_s + 2 * policy.interval_s
    assert first_pass_s < policy.pause_timeout_s


@pytest.mark.parametrize("judge", JudgeName)
def test_a_judge_asked_for_by_name_replaces_that_of_a_borrowed_policy(mine: Path, judge: JudgeName) -> None:
    assert borrowed_policy(mine, TARGET, judge).judge is judge
    assert borrowed_policy(mine, TARGET, None).judge is parse_policy(MINE).judge


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
@pytest.mark.parametrize("judge", JudgeName)
def test_the_demos_own_policies_suit_every_scenario(name: str, judge: JudgeName) -> None:
    scenario = SCENARIOS[name]
    assert suits(scenario, parse_policy(policy_text(Pace.QUICK, scenario.strategy, TARGET, judge))) == ""


def test_the_third_step_of_every_canary_leaves_stable_something_to_be_compared_with() -> None:
    for pace, judge in PLANS:
        policy = parse_policy(policy_text(pace, Strategy.CANARY, TARGET, judge))
        assert policy.weights_bp[2] < FULL_BP, (pace, judge)


def test_a_policy_with_too_few_steps_for_a_scenario_is_told_so_in_a_sentence(mine: Path) -> None:
    policy = borrowed_policy(mine, TARGET, None)
    assert suits(SCENARIOS["late"], policy) == "late plays in step 3, the policy has 2 steps"
    assert suits(SCENARIOS["crash"], policy) == ""


@pytest.mark.parametrize("pace", Pace)
def test_the_plan_check_finds_every_step_decidable_by_evidence(pace: Pace) -> None:
    policy = parse_policy(policy_text(pace, Strategy.CANARY, TARGET, JudgeName.EVIDENCE))
    known = Known(rps=PLANS[pace, JudgeName.EVIDENCE].rps)
    assert plan_of(policy, known).undecidable == ()
    assert plan_of(policy, Known(rps=known.rps / 200)).undecidable != ()
