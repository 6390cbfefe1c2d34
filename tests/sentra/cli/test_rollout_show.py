"""What ``list``, ``status`` and ``watch`` show, as text and as JSON."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sentra.cli import rollout_view
from sentra.cli.exits import Exit
from tests.sentra.cli.conftest import Line
from tests.sentra.cli.shop import Shop, worker_stopped
from tests.sentra.cli.test_rollout_commands import started, status, until


def test_list_shows_what_is_active_and_with_all_also_what_was(shop: Shop, sentra: Line) -> None:
    assert sentra("rollout", "list").out == "no active rollouts\n"
    assert sentra("rollout", "list", "-o", "json").value == []
    rollout_id = started(sentra, shop.slow_line())
    assert rollout_id in sentra("rollout", "list").out
    sentra("rollout", "abort")
    until(sentra, rollout_id, phase="aborted")
    assert sentra("rollout", "list", "-o", "json").value == []
    (entry,) = sentra("rollout", "list", "--all", "--service", shop.service, "-o", "json").value
    assert entry["rollout_id"] == rollout_id
    assert entry["phase"] == entry["outcome"] == "aborted"
    assert entry["is_active"] is False
    assert sentra("rollout", "list", "--all", "--service", "nobody", "-o", "json").value == []


def test_list_is_newest_first_and_can_be_cut(shop: Shop, sentra: Line) -> None:
    ids = [started(sentra, each.slow_line()) for each in (shop, Shop(shop.folder))]
    found = sentra("rollout", "list", "-o", "json").value
    assert [each["rollout_id"] for each in found] == ids[::-1]
    assert len(sentra("rollout", "list", "--limit", "1", "-o", "json").value) == 1


def test_status_shows_steps_gates_against_limits_and_why(shop: Shop, sentra: Line) -> None:
    rollout_id = started(sentra, shop.slow_line())
    until(sentra, rollout_id, phase="analysing", verdict="PASS")
    out = sentra("rollout", "status").out
    assert f"{rollout_id} · {shop.service} in test · {shop.stable} → {shop.canary}" in out
    assert f"analysing · step 1 of 2 · 10 % of the traffic on {shop.canary}" in out
    assert "decided    ADVANCE to 10 %: the target is ready" in out
    assert "waits for  " in out
    assert "log_error_ratio  0 %     ≤ 5 %" in out
    assert "▸ 1   10 %    analysing" in out
    assert "2   100 %   pending" in out
    assert "last events" in out


def test_status_as_json_holds_the_same(shop: Shop, sentra: Line) -> None:
    rollout_id = started(sentra, shop.slow_line())
    found = until(sentra, rollout_id, phase="analysing", verdict="PASS")
    assert [step["weight_bp"] for step in found["steps"]] == [1000, 10_000]
    assert found["steps"][0]["status"] == "analysing"
    (gate,) = found["gates"]
    assert (gate["gate"], gate["slo"], gate["canary"]) == ("log_error_ratio", 0.05, 0.0)
    assert gate["canary_samples"] >= 20
    assert found["decision"]["text"].startswith("ADVANCE to 10 %")
    assert found["events"][0]["kind"] == "command"


def test_status_is_fresh_while_nothing_changes(shop: Shop, sentra: Line) -> None:
    rollout_id = started(sentra, shop.slow_line(window="60s"))
    first = until(sentra, rollout_id, phase="analysing", verdict="PASS")
    deadline = time.monotonic() + 20
    while (later := status(sentra, rollout_id))["gates"][0]["canary_samples"] < 250:
        assert time.monotonic() < deadline, later
        time.sleep(0.1)
    assert later["phase"] == first["phase"]
    assert later["eta_s"] < 297
    assert later["silent_s"] is None


def test_a_rollout_that_nobody_judges_is_said_to_be_silent(
    shop: Shop, sentra: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout_id = started(sentra, shop.slow_line())
    until(sentra, rollout_id, phase="analysing")
    monkeypatch.setattr(rollout_view, "SILENT_S", 1.0)
    with worker_stopped(shop.folder):
        deadline = time.monotonic() + 20
        while "does a worker run?" not in (out := sentra("rollout", "status").out):
            assert time.monotonic() < deadline, out
            time.sleep(0.1)
    assert "no news for " in out


def test_status_of_a_rolled_back_rollout_shows_the_incident(shop: Shop, sentra: Line) -> None:
    shop.errors = 0.8
    rollout_id = started(sentra, shop.start_line())
    until(sentra, rollout_id, phase="rolled_back")
    out = sentra("rollout", "status", rollout_id).out
    assert "rolled back" in out
    assert "severe: " in out
    assert "decided    ROLL_BACK" in out


def test_watch_tells_each_event_once(shop: Shop, sentra: Line) -> None:
    rollout_id = started(sentra, shop.start_line())
    said = sentra("rollout", "watch", rollout_id, "--timeout", "60s")
    assert said.code == Exit.OK
    assert said.err.count("ADVANCE to 10 %") == 1
    assert said.err.count("ADVANCE to 100 %") == 1
    assert said.err.count("PROMOTE") == 1


def test_watch_goes_on_through_a_pause_unless_told_otherwise(shop: Shop, sentra: Line) -> None:
    rollout_id = started(sentra, shop.slow_line(approvals=[1]))
    until(sentra, rollout_id, phase="paused")
    early = sentra("rollout", "watch", "--until-pause")
    assert early.code == Exit.WAITING
    assert f"sentra rollout resume, advance, promote or abort {rollout_id}" in early.out
    assert sentra("rollout", "watch", "--timeout", "1s").code == Exit.WAITING


def test_watch_ends_with_4_when_its_time_is_over(shop: Shop, sentra: Line) -> None:
    started(sentra, shop.slow_line())
    said = sentra("rollout", "watch", "--timeout", "500ms", "-o", "json")
    assert said.code == Exit.STILL_RUNNING
    assert said.value["exit_code"] == 4


def test_on_a_terminal_watch_draws_a_live_picture(shop: Shop, sentra: Line) -> None:
    rollout_id = started(sentra, shop.slow_line())
    until(sentra, rollout_id, phase="analysing", verdict="PASS")
    ours, theirs = pty.openpty()
    root = str(Path(__file__).parents[3])
    watching = subprocess.run(
        [sys.executable, "-m", "sentra.cli.main", "rollout", "watch", "--timeout", "1s", "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"PYTHONPATH": root, "TERM": "xterm", "COLUMNS": "120", "LINES": "50"},
        timeout=60,
        check=False,
    )
    os.close(theirs)
    drawn = os.read(ours, 1_000_000).decode(errors="replace")
    os.close(ours)
    assert watching.returncode == Exit.STILL_RUNNING
    assert json.loads(watching.stdout)["rollout_id"] == rollout_id
    assert "\x1b[" in drawn
    assert "log_error_ratio" in drawn
