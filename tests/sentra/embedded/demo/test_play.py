"""The negative control: the count of requests lost by shifting rises when the adapter loses some."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from domain.clock import SystemClock
from sentra.embedded.demo.play import Play, play
from sentra.embedded.demo.policies import Pace
from sentra.embedded.demo.scenarios import SCENARIOS
from sentra.embedded.demo.story import Story
from sentra.embedded.demo.summary import Summary
from sentra.embedded.stack import Stack
from tests.sentra.embedded.demo.short import SHORT

pytestmark = [pytest.mark.server, pytest.mark.slow]

LOSSY_WORKER = Path(__file__).with_name("lossy_worker.py")


async def played(folder: Path) -> Summary:
    """A healthy rollout in two short steps."""
    policy = folder / "short.yaml"
    policy.write_text(SHORT)
    given = Play(
        scenario=SCENARIOS["healthy"],
        pace=Pace.QUICK,
        rps=200.0,
        seed=1,
        judge=None,
        policy_file=policy,
        directory=folder,
        keeps=True,
    )
    heard: list[Story] = []
    summary = await play(given, lambda story, policy: heard.append(story), SystemClock().now())
    assert heard, "somebody may watch"
    return summary


def with_worker(monkeypatch: pytest.MonkeyPatch, program: Path) -> None:
    """The stack's worker is ``program`` instead of ``sentra``, with the same arguments."""
    usual = Stack._worker_argv

    def argv(stack: Stack) -> list[str]:
        python, flag, module, *arguments = usual(stack)
        assert (python, flag, module) == (sys.executable, "-m", "sentra.cli.main")
        return [python, str(program), *arguments]

    monkeypatch.setattr(Stack, "_worker_argv", argv)


async def test_an_adapter_that_loses_requests_shows_in_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_worker(monkeypatch, LOSSY_WORKER)
    summary = await played(tmp_path)
    assert summary.steps, summary
    # 200 requests a second, lost for 0.1 s with each of the steps' shifts
    assert summary.shift_failures >= 10 * len(summary.steps), summary
    assert sum(summary.failed.values()) >= summary.shift_failures


async def test_the_real_adapter_loses_none(tmp_path: Path) -> None:
    summary = await played(tmp_path)
    assert summary.outcome == "promoted", summary
    assert len(summary.steps) == 2
    assert summary.shift_failures == 0, summary
    assert summary.failed == {"stable": 0, "canary": 0}
