"""The scenarios are those that the README promises, with the ends it promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from domain.errors import ConfigError
from domain.policy import Strategy
from domain.rollout import Phase
from sentra.embedded.demo.scenarios import SCENARIOS, scenario_named

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
    ],
)
def test_each_scenario_ends_as_the_readme_says(name: str, word: str, end: Phase) -> None:
    assert SCENARIOS[name].expected == (end,)
    assert word in promised()[name]


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
    with pytest.raises(ConfigError, match=r"no scenario 'chaos'; known are healthy, errors, .*, blue-green"):
        scenario_named("chaos")
