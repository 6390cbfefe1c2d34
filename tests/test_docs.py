"""Documentation that cannot rot: what the code offers is named, and what is generated is fresh."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import yaml

from domain.calibration import Tier
from domain.policy_text import GATE_KEYS, POLICY_KEYS, parse_policy
from domain.signal import SIGNALS
from sentra.cli import calibrations, docs
from sentra.cli.exits import Exit
from sentra.cli.main import invoke
from sentra.config import Settings
from sentra.embedded.demo.scenarios import SCENARIOS
from sentra.role import ALL_ROLES
from streams.pollers.prometheus_presets import PRESETS
from streams.pollers.prometheus_settings import PrometheusSettings
from streams.pollers.registry import KINDS, read_sources
from streams.topics import TOPICS

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_generated_files_say_what_the_code_says() -> None:
    assert [path.name for path in docs.outdated()] == []


@pytest.mark.parametrize("key", [*POLICY_KEYS, *GATE_KEYS])
def test_every_policy_key_is_documented(key: str) -> None:
    assert f"`{key}`" in README


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_is_documented(scenario: str) -> None:
    assert f"`sentra demo --scenario {scenario}`" in README


@pytest.mark.parametrize("name", [*SIGNALS, *TOPICS])
def test_every_signal_and_topic_is_documented(name: str) -> None:
    assert name in README


@pytest.mark.parametrize("role", ALL_ROLES)
def test_every_role_is_documented(role: str) -> None:
    assert re.search(rf"--roles [a-z,]*\b{role}\b", README)


@pytest.mark.parametrize("code", list(Exit))
def test_every_exit_code_is_documented(code: Exit) -> None:
    assert re.search(rf"\b{int(code)} [a-z]", README)


@pytest.mark.parametrize("key", sorted(Settings.model_fields))
def test_every_setting_is_documented(key: str) -> None:
    assert f"`{key}`" in README


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_is_documented(kind: str) -> None:
    assert re.search(rf"(`|kind: ){kind}\b", README)


@pytest.mark.parametrize("key", sorted({*PrometheusSettings.model_fields} - {"kind", "freshness"}))
def test_every_key_of_a_prometheus_source_is_documented(key: str) -> None:
    assert f"`{key}`" in README


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_documented(preset: str) -> None:
    assert f"`{preset}`" in README


def test_the_sources_of_the_readme_are_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    sources = [block for block in (textwrap.dedent(each) for each in blocks) if block.startswith("sources:")]
    assert len(sources) >= 2
    for block in sources:
        assert read_sources(yaml.safe_load(block)["sources"])


@pytest.mark.parametrize("name", [str(each.name) for each in calibrations.app.registered_commands])
def test_every_calibrations_command_is_documented(name: str) -> None:
    assert re.search(rf"`sentra calibrations {name}\b", README)


@pytest.mark.parametrize("tier", Tier)
def test_every_tier_is_documented(tier: Tier) -> None:
    assert f"| {tier.value} |" in README


def test_the_policy_of_the_readme_is_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    policies = [block for block in blocks if block.startswith("service:")]
    assert len(policies) == 1
    assert parse_policy(policies[0]).weights_bp == (500, 2_000, 4_000, 7_000, 10_000)


def test_the_compose_file_asks_for_commands_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parent.parent / "docker-compose.yml").read_text()
    services = yaml.safe_load(text)["services"]
    commands = [each["command"] for each in services.values() if each.get("build") and "command" in each]
    assert len(commands) >= 6
    for command in commands:
        words = [word for word in command if not word.startswith("-")][: 2 if command[0] == "db" else 1]
        assert invoke([*words, "--help"]) == Exit.OK
        offered = capsys.readouterr().out
        for option in (word for word in command if word.startswith("--")):
            assert option in offered, (words, option)
