"""A real ``sentra up`` in a folder of its own, and the command line as somebody in that folder uses it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sentra.cli import main
from sentra.cli.connect import repository_of, settings_of
from tests.sentra.cli.shop import Shop, running_up


@dataclass(frozen=True)
class Said:
    """What a command line led to."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """Standard output as the one JSON value it must be."""
        return json.loads(self.out)


def abort_all() -> None:
    """End every rollout that is active, and wait until it has ended."""
    repository = repository_of(settings_of(None))
    for stored in repository.active_rollouts():
        main.invoke(["rollout", "abort", stored.spec.rollout_id])
    deadline = time.monotonic() + 20
    while left := repository.active_rollouts():
        assert time.monotonic() < deadline, f"still active: {[each.spec.rollout_id for each in left]}"
        time.sleep(0.05)


class Line:
    """Runs command lines within this process, in the present folder."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Said:
        self._capsys.readouterr()
        code = main.invoke(list(arguments))
        caught = self._capsys.readouterr()
        return Said(code, caught.out, caught.err)


@pytest.fixture
def sentra(capsys: pytest.CaptureFixture[str]) -> Line:
    """The program: ``sentra("rollout", "list")``."""
    return Line(capsys)


@pytest.fixture(scope="package")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running ``sentra up`` whose log source reads ``logs/*.jsonl``."""
    folder = tmp_path_factory.mktemp("up")
    with running_up(folder):
        yield folder


@pytest.fixture
def shop(up: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A service of this test's own, with traffic on both versions; the present folder is Sentra's.

    Afterwards no rollout is active, so that each test may count them.
    """
    monkeypatch.chdir(up)
    with Shop(up).open() as shop:
        yield shop
        abort_all()


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which no Sentra runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
