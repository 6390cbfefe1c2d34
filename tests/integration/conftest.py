"""The closed loop as a fixture, and the figures that fault tests measure, printed at the end of the run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sentra.embedded.stack import Stack
from tests.integration.loop import Loop, Measured, Processes, one_process, processes

_FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
async def loop(tmp_path: Path) -> AsyncIterator[tuple[Loop, Stack]]:
    """Every role in one supervised process, real traffic, and eyes on log, journal and routes."""
    async with one_process(tmp_path) as made:
        yield made


@pytest.fixture
async def apart(tmp_path: Path) -> AsyncIterator[tuple[Loop, Processes]]:
    """The same with a process per role."""
    async with processes(tmp_path, "judge", "actuate", "record", "poll", "relay") as made:
        yield made


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Figures for the summary at the end of the run."""

    def note(what: str, seconds: float) -> None:
        request.config.stash.setdefault(_FIGURES, []).append(f"{seconds:6.2f} s  {what}")

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    figures = terminalreporter.config.stash.get(_FIGURES, [])
    if figures:
        terminalreporter.section("recoveries")
        terminalreporter.write_line("\n".join(figures))
