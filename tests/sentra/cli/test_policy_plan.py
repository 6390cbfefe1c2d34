"""``sentra policy check --rps``: whether the traffic can decide a policy's steps, and what would."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from domain.policy_text import parse_policy
from sentra.cli.exits import Exit
from tests.sentra.cli.conftest import Line, Said

POLICY = {
    "service": "shop",
    "environment": "test",
    "steps": [5, 5, 15, 25, 25, 25],
    "telemetry": {"metrics": "prom", "logs": "loki"},
    "traffic": {"adapter": "memory", "target": {"name": "shop"}},
}


def _write(folder: Path, **changes: object) -> str:
    kept = {key: value for key, value in (POLICY | changes).items() if value is not None}
    (folder / "policy.yaml").write_text(yaml.safe_dump(kept, sort_keys=False))
    return "policy.yaml"


def _proposed(said: Said) -> list[dict[str, object]]:
    """The lines under every "this decides:"."""
    return [yaml.safe_load(part) for part in said.out.split("this decides:\n")[1:]]


def test_without_traffic_it_hints_at_the_option(nowhere: Path, sentra: Line) -> None:
    said = sentra("policy", "check", _write(nowhere))
    assert said.code == Exit.OK
    assert "add --rps N" in said.out


def test_enough_traffic_decides_every_step(nowhere: Path, sentra: Line) -> None:
    said = sentra("policy", "check", _write(nowhere), "--rps", "100")
    assert said.code == Exit.OK
    assert said.out.count("decides") == 6
    assert "tier R0: nothing learnt about this service yet" in said.out
    assert (
        "error_rate 0.2 %, latency_ms > 400 1 %, log_error_ratio 0.1 % (assumed: a fifth of the limit)"
        in (said.out)
    )


def test_a_plan_at_10_rps_says_that_its_first_steps_find_nothing(nowhere: Path, sentra: Line) -> None:
    said = sentra("policy", "check", _write(nowhere), "--rps", "10")
    assert said.code == Exit.OK
    assert "steps 1, 2, 3, 4, 5 (5 %, 10 %, 25 %, 50 %, 75 %) cannot be relied on" in said.out


def test_too_little_traffic_is_refused_with_what_is_needed_and_allowed(nowhere: Path, sentra: Line) -> None:
    said = sentra("policy", "check", _write(nowhere, max_step_time="10m"), "--rps", "10")
    assert said.code == Exit.REJECTED
    assert "policy.yaml: step 1 (5 %) cannot decide at 10 requests/s" in said.err.replace("\n", " ")
    assert "to show log_error_ratio below 2 %, and max_step_time allows 10m (300)" in said.err
    assert "this decides: steps: [10, 15, 25, 25, 25] or max_step_time: 15m" in said.err


@pytest.mark.parametrize("style", ["steps", "weights"])
def test_what_is_proposed_can_be_pasted_and_is_accepted(style: str, nowhere: Path, sentra: Line) -> None:
    shares = {"steps": [1, 4, 95], "weights": [1, 5, 100]}
    lists = {"steps": None, "weights": None} | {style: shares[style]}
    said = sentra("policy", "check", _write(nowhere, max_step_time="5m", **lists), "--rps", "10")
    assert said.code == Exit.REJECTED
    proposed = _proposed(said)
    assert len(proposed) == 2
    assert style in proposed[0]
    for each in proposed:
        text = _write(nowhere, **({"max_step_time": "5m"} | lists | each))
        assert sentra("policy", "check", text, "--rps", "10").code == Exit.OK, each


def test_the_plan_as_json_has_every_number(nowhere: Path, sentra: Line) -> None:
    said = sentra("policy", "check", _write(nowhere, max_step_time="10m"), "--rps", "10", "-o", "json")
    assert said.code == Exit.REJECTED
    plan = said.value["plan"]
    assert said.value["valid"] is True
    assert (plan["rps"], plan["tier"], plan["undecidable"]) == (10.0, "R0", [1])
    assert [step["weight_bp"] for step in plan["steps"]] == [500, 1000, 2500, 5000, 7500, 10_000]
    first = plan["steps"][0]
    assert first["passes"]["p90_s"] > 600.0
    logs = first["gates"][2]
    assert (logs["gate"], logs["claim"], logs["claimed_rate"]) == ("log_error_ratio", 4.0, 0.02)
    assert (logs["healthy_rate"], logs["origin"]) == (0.001, "assumed")
    assert [each["ratio"] for each in logs["finds"]] == [4.0, 2.0]
    assert plan["proposals"][0] == {"weights_bp": [1000, 2500, 5000, 7500, 10_000], "max_step_time_s": 600.0}


def test_healthy_rates_may_be_told_per_signal(nowhere: Path, sentra: Line) -> None:
    rates = ("--healthy-rate", "0.1%", "--healthy-rate", "latency_ms=2%")
    said = sentra("policy", "check", _write(nowhere), "--rps", "100", *rates, "-o", "json")
    gates = said.value["plan"]["steps"][0]["gates"]
    assert [each["healthy_rate"] for each in gates] == [0.001, 0.02, 0.001]
    assert {each["origin"] for each in gates} == {"given"}


def test_a_service_that_lives_beyond_its_limit_is_told_so(nowhere: Path, sentra: Line) -> None:
    said = sentra("policy", "check", _write(nowhere), "--rps", "1000", "--healthy-rate", "error_rate=2%")
    assert said.code == Exit.REJECTED
    assert "a healthy error_rate of 2 % cannot be shown to be below" in said.err
    assert _proposed(said) == []


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("much", "--healthy-rate: expected a share such as 0.1%, got 'much'"),
        ("cpu=1%", "--healthy-rate names 'cpu', but gates are on error_rate, latency_ms, log_error_ratio"),
        ("100%", "a healthy rate must lie in 0 %..100 %, got 100 %"),
    ],
)
def test_healthy_rates_that_cannot_be_are_errors(
    option: str, sentence: str, nowhere: Path, sentra: Line
) -> None:
    said = sentra("policy", "check", _write(nowhere), "--rps", "10", "--healthy-rate", option)
    assert said.code == Exit.ERROR
    assert sentence in said.err


def test_no_traffic_is_an_error(nowhere: Path, sentra: Line) -> None:
    said = sentra("policy", "check", _write(nowhere), "--rps", "0")
    assert said.code == Exit.ERROR
    assert "requests per second must lie above 0" in said.err


def test_the_threshold_judge_has_no_plan(nowhere: Path, sentra: Line) -> None:
    said = sentra("policy", "check", _write(nowhere, judge="threshold"), "--rps", "1")
    assert said.code == Exit.OK
    assert "only steps of judge: evidence can be planned" in said.out


def test_the_policy_of_the_readme_decides_at_100_rps(nowhere: Path, sentra: Line) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    text = "service:" + readme.split("```yaml\nservice:")[1].split("```")[0]
    assert parse_policy(text).weights_bp[0] == 500
    (nowhere / "policy.yaml").write_text(text)
    assert sentra("policy", "check", "policy.yaml", "--rps", "100").code == Exit.OK
