"""The program as a whole: exit codes, help for everything, and errors in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from domain.errors import ActuationError, ConfigError, Denied, PolicyError, StoreError, StoreUnavailable
from sentra.cli import main
from sentra.cli.exits import Exit, Rejected, Unreachable, exit_of
from streams.bus import BrokerUnavailable
from tests.sentra.cli.conftest import Line


def commands(found: Any = None, name: str = "sentra") -> Iterator[tuple[str, Any]]:
    """Every command and group of the program, by its full name."""
    found = found or typer.main.get_command(main.app)
    yield name, found
    for each, command in getattr(found, "commands", {}).items():
        yield from commands(command, f"{name} {each}")


COMMANDS = dict(commands())


def test_the_commands_are_these() -> None:
    groups = ("sentra", "sentra rollout", "sentra policy")
    assert {name for name in COMMANDS if name not in groups} >= {
        "sentra up",
        "sentra worker",
        "sentra demo",
        "sentra topics",
        "sentra schema",
        "sentra policy check",
        *(
            f"sentra rollout {each}"
            for each in (
                "start",
                "list",
                "status",
                "watch",
                "pause",
                "resume",
                "advance",
                "promote",
                "abort",
                "retry",
                "change-policy",
            )
        ),
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_and_all_its_options_have_help(name: str) -> None:
    command = COMMANDS[name]
    assert command.help, f"{name} has no help"
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name} {parameter.name} has no help"


@pytest.mark.parametrize("name", [name for name in COMMANDS if name.startswith("sentra rollout ")])
def test_a_rollout_command_shows_an_example(name: str) -> None:
    assert f"Example: `{name}" in COMMANDS[name].help


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_printed_with_0(name: str, sentra: Line) -> None:
    said = sentra(*name.split()[1:], "--help")
    assert said.code == Exit.OK
    assert "Usage" in said.out


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "rollout nonsense",
        "rollout start --nonsense",
        "rollout list --limit none",
        "rollout list --limit 0",
        "rollout status -o xml",
        "rollout change-policy only-an-id",
        "policy check",
    ],
)
def test_a_wrong_command_line_is_1_and_never_2(line: str, sentra: Line) -> None:
    said = sentra(*line.split())
    assert said.code == Exit.ERROR
    assert "Error: " in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), Exit.ERROR),
        (PolicyError("x"), Exit.ERROR),
        (StoreError("x"), Exit.ERROR),
        (ActuationError("x"), Exit.ERROR),
        (Rejected("x"), Exit.REJECTED),
        (Denied("x"), Exit.NOT_AUTHORISED),
        (Unreachable("x"), Exit.UNREACHABLE),
        (StoreUnavailable("x"), Exit.UNREACHABLE),
        (BrokerUnavailable("x"), Exit.UNREACHABLE),
    ],
)
def test_every_kind_of_error_has_its_exit_code(error: Any, code: Exit) -> None:
    assert exit_of(error) == code


def test_exit_codes_never_change_meaning() -> None:
    assert {each.name: each.value for each in Exit} == {
        "OK": 0,
        "ERROR": 1,
        "ROLLED_BACK": 2,
        "ABORTED": 3,
        "STILL_RUNNING": 4,
        "REJECTED": 5,
        "NOT_AUTHORISED": 6,
        "UNREACHABLE": 7,
        "WAITING": 8,
        "UNEXPECTED": 9,
    }


def test_a_database_that_does_not_answer_is_7_and_its_password_is_not_shown(
    nowhere: Path, sentra: Line
) -> None:
    settings = "bootstrap: 127.0.0.1:1\ndatabase: mysql+pymysql://ann:hunter2@127.0.0.1:1/sentra\n"
    (nowhere / "sentra.yaml").write_text(settings)
    said = sentra("rollout", "list")
    assert said.code == Exit.UNREACHABLE
    assert "does not answer" in said.err
    assert "hunter2" not in said.err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("colour: red\n", "sentra.yaml: colour: "),
        ("- a\n", "sentra.yaml must be a mapping"),
        ("a: [\n", "sentra.yaml is not YAML"),
        ("partitions: 0\n", "sentra.yaml: partitions: "),
    ],
)
def test_broken_settings_are_named(content: str, sentence: str, nowhere: Path, sentra: Line) -> None:
    (nowhere / "sentra.yaml").write_text(content)
    said = sentra("rollout", "list")
    assert said.code == Exit.ERROR
    assert sentence in said.err


def test_settings_that_are_not_there_are_named(nowhere: Path, sentra: Line) -> None:
    said = sentra("rollout", "list", "--config", "other.yaml")
    assert said.code == Exit.ERROR
    assert "cannot read other.yaml" in said.err


def test_the_program_ends_with_the_exit_code(nowhere: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-m", "sentra.cli.main", "rollout", "list"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == Exit.UNREACHABLE
    assert ended.stdout == ""
    assert ended.stderr.startswith("error no Sentra runs in ")
