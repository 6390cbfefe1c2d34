"""The scenarios are those that the README promises, with the ends it promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from domain.errors import ConfigError
from domain.policy import JudgeName, Strategy
from domain.rollout import Phase
from sentra.embedded.demo.policies import Pace
from sentra.embedded.demo.scenarios import NOISE, SCENARIOS, SUBTLE_ERRORS, USUAL_ERRORS, scenario_named
from tests.sentra.embedded.demo.tale import quick_policy

README = Path(__file__).parents[4] / "README.md"
_ROW = re.compile(r"^\| `sentra demo --scenario (?P<name>[a-z-]+)` \| (?P<shows>.+) \|$", re.MULTILINE)


def promised() -> dict[str, str]:
    return {row["name"]: row["shows"] for row in _ROW.finditer(README.read_text(encoding="utf-8"))}


def test_the_readme_lists_every_scenario_and_no_other() -> None:
    assert list(promised()) == list(SCENARIOS)


@pytest.mark.parametrize(
    ("name", "word", "end"),
    [
        ("healthy", "promoted", Phase.PROMOTED),
        ("errors", "rolled back", Phase.ROLLED_BACK),
        ("latency", "rolled back", Phase.ROLLED_BACK),
        ("late", "rolled back", Phase.ROLLED_BACK),
        ("crash", "rolled back", Phase.ROLLED_BACK),
        ("silent", "paused", Phase.PAUSED),
        ("flaky", "promoted", Phase.PROMOTED),
        ("shared", "paused", Phase.PAUSED),
        ("subtle", "rolled back", Phase.ROLLED_BACK),
        ("aa", "promoted", Phase.PROMOTED),
    ],
)
def test_each_scenario_ends_as_the_readme_says(name: str, word: str, end: Phase) -> None:
    assert SCENARIOS[name].expected == (end,)
    assert word in promised()[name]


def test_trouble_that_both_versions_have_may_only_pause_where_they_are_compared() -> None:
    assert SCENARIOS["shared"].expects(JudgeName.EVIDENCE) == (Phase.PAUSED,)
    assert Phase.ROLLED_BACK in SCENARIOS["shared"].expects(JudgeName.THRESHOLD)


@pytest.mark.parametrize("name", set(SCENARIOS) - {"shared"})
def test_both_judges_should_end_it_alike(name: str) -> None:
    assert len({SCENARIOS[name].expects(judge) for judge in JudgeName}) == 1


def test_a_scenario_says_how_many_users_it_needs_and_otherwise_the_judges_plan_does() -> None:
    assert SCENARIOS["subtle"].usual_rps(JudgeName.EVIDENCE, Pace.QUICK) == 800.0
    assert SCENARIOS["healthy"].usual_rps(JudgeName.EVIDENCE, Pace.QUICK) == 400.0
    assert SCENARIOS["healthy"].usual_rps(JudgeName.THRESHOLD, Pace.QUICK) == 200.0


def test_stable_keeps_its_limits_in_the_subtle_story_and_the_canary_does_not() -> None:
    policy = quick_policy()
    limits = {gate.signal: gate.slo for gate in policy.gates}
    for fault, keeps in ((USUAL_ERRORS, True), (SUBTLE_ERRORS, False)):
        assert (fault.error_ratio < limits["error_rate"]) is keeps
        assert (fault.error_ratio * (1 - fault.unlogged_ratio) < limits["log_error_ratio"]) is keeps


def test_the_noise_of_two_equal_versions_is_inside_every_limit() -> None:
    limits = {gate.signal: gate.limit_share for gate in quick_policy().gates}
    assert 0 < NOISE.error_ratio < limits["log_error_ratio"] < limits["error_rate"]
    assert 0 < NOISE.slow_ratio < limits["latency_ms"]


def test_silence_alone_may_neither_promote_nor_roll_back() -> None:
    assert not {Phase.PROMOTED, Phase.ROLLED_BACK} & set(SCENARIOS["silent"].expected)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_expected_end_is_one_where_nothing_else_happens(name: str) -> None:
    assert all(phase.is_final or phase is Phase.PAUSED for phase in SCENARIOS[name].expected)


def test_only_blue_green_has_preview_users() -> None:
    with_preview = [each.name for each in SCENARIOS.values() if each.preview_rps > 0]
    assert with_preview == ["blue-green"]
    assert SCENARIOS["blue-green"].strategy is Strategy.BLUE_GREEN


def test_an_unknown_scenario_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no scenario 'chaos'; known are healthy, errors, .*, aa"):
        scenario_named("chaos")
