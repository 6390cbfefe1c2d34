"""``sentra up`` and ``sentra worker``: one stack per folder, and what happens to commands when it is gone."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from sentra.cli import rollout_ask
from sentra.cli.exits import Exit
from sentra.embedded.running import find
from tests.sentra.cli.conftest import Line
from tests.sentra.cli.shop import Shop, running_up, spawn_up, worker_stopped
from tests.sentra.cli.test_rollout_commands import started, until


def test_a_second_up_in_the_same_folder_says_who_runs_there(up: Path) -> None:
    running = find(up / ".sentra")
    assert running is not None
    second = spawn_up(up)
    said, _ = second.communicate(timeout=60)
    assert second.returncode == Exit.ERROR
    assert f"another sentra runs in {up / '.sentra'} (pid {running.pid})" in said
    assert find(up / ".sentra") == running


def test_up_needs_a_folder_it_can_write(nowhere: Path, sentra: Line) -> None:
    (nowhere / "file").write_text("")
    said = sentra("up", "--state", "file/state")
    assert said.code == Exit.ERROR
    assert "/file/state: Not a directory; choose another folder" in said.err


def test_up_refuses_broken_sources(nowhere: Path) -> None:
    (nowhere / "sentra.yaml").write_text("sources: {app-logs: {kind: carrier-pigeon}}\n")
    ended = spawn_up(nowhere)
    said, _ = ended.communicate(timeout=60)
    assert ended.returncode == Exit.ERROR
    assert "sources.app-logs.kind: unknown kind 'carrier-pigeon'; known are" in said


def test_a_worker_without_a_broker_says_what_to_set(nowhere: Path, sentra: Line) -> None:
    said = sentra("worker")
    assert said.code == Exit.ERROR
    assert "no broker: set bootstrap in sentra.yaml" in said.err


def test_an_unknown_role_is_refused_with_the_known_ones(nowhere: Path, sentra: Line) -> None:
    said = sentra("worker", "--roles", "judge,king")
    assert said.code == Exit.ERROR
    assert "unknown role 'king'; known are judge, actuate" in said.err


def test_a_command_nobody_answers_is_7_and_is_carried_out_later(
    shop: Shop, sentra: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout_id = started(sentra, shop.slow_line())
    until(sentra, rollout_id, phase="analysing")
    with worker_stopped(shop.folder):
        monkeypatch.setattr(rollout_ask, "ANSWER_S", 0.5)
        said = sentra("rollout", "pause", rollout_id)
    assert said.code == Exit.UNREACHABLE
    assert "the worker does not answer" in said.err
    until(sentra, rollout_id, phase="paused")


def test_up_leaves_nothing_behind_and_goes_on_where_it_was(
    tmp_path: Path, sentra: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    with Shop(tmp_path).open() as shop:
        with running_up(tmp_path) as running:
            children = psutil.Process(running.pid).children(recursive=True)
            rollout_id = started(sentra, shop.slow_line())
            until(sentra, rollout_id, phase="analysing")
        assert not [child for child in children if child.is_running()]
        said = sentra("rollout", "status", rollout_id)
        assert said.code == Exit.UNREACHABLE
        with running_up(tmp_path):
            found = until(sentra, rollout_id, phase="analysing", verdict="PASS")
            assert found["verified_bp"] == 1000
            assert sentra("rollout", "abort", rollout_id).code == Exit.OK
            until(sentra, rollout_id, phase="aborted")


def test_the_state_folder_of_the_settings_is_where_up_runs(
    tmp_path: Path, sentra: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sentra.yaml").write_text("state_dir: elsewhere\n")
    process = spawn_up(tmp_path)
    try:
        deadline = time.monotonic() + 60
        while find(tmp_path / "elsewhere") is None:
            assert process.poll() is None and time.monotonic() < deadline, process.poll()
            time.sleep(0.05)
        assert sentra("rollout", "list", "-o", "json").value == []
    finally:
        process.terminate()
        process.communicate(timeout=30)
