"""What operators tell rollouts: accepted, refused with the reason, or meant for one that is not there."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sentra.cli.exits import Exit
from tests.sentra.cli.conftest import Line
from tests.sentra.cli.shop import Shop


def started(sentra: Line, line: tuple[str, ...]) -> str:
    """Start a rollout; its id."""
    said = sentra(*line, "-o", "json")
    assert said.code == Exit.OK, said
    rollout_id: str = said.value["rollout_id"]
    return rollout_id


def status(sentra: Line, rollout_id: str) -> dict[str, Any]:
    """What ``status`` says of it."""
    found: dict[str, Any] = sentra("rollout", "status", rollout_id, "-o", "json").value
    return found


def until(sentra: Line, rollout_id: str, within_s: float = 30.0, **wanted: Any) -> dict[str, Any]:
    """Its status once it is as ``wanted``."""
    deadline = time.monotonic() + within_s
    while True:
        found = status(sentra, rollout_id)
        if all(found[key] == value for key, value in wanted.items()):
            return found
        assert time.monotonic() < deadline, f"wanted {wanted}, got {found}"
        time.sleep(0.05)


def test_a_rollout_is_paused_and_resumed_with_reasons(shop: Shop, sentra: Line) -> None:
    rollout_id = started(sentra, shop.slow_line())
    until(sentra, rollout_id, phase="analysing")
    said = sentra("rollout", "pause", rollout_id, "--reason", "lunch", "--actor", "ann")
    assert said.code == Exit.OK, said
    assert said.out == f"{rollout_id}: paused; traffic stays where it is\n"
    paused = until(sentra, rollout_id, phase="paused", pause_causes=["operator"])
    assert paused["decision"]["text"] == "PAUSE: paused by ann: lunch"
    assert paused["waits_for_person"] is True
    assert sentra("rollout", "resume", rollout_id).code == Exit.OK
    until(sentra, rollout_id, phase="analysing", pause_causes=[])


def test_an_answer_is_one_json_value(shop: Shop, sentra: Line) -> None:
    rollout_id = started(sentra, shop.slow_line())
    until(sentra, rollout_id, phase="analysing")
    said = sentra("rollout", "pause", "-o", "json")
    assert said.value["rollout_id"] == rollout_id
    assert said.value["accepted"] is True
    assert "resume" in said.value["possible"]


def test_advance_orders_the_next_step_at_once(shop: Shop, sentra: Line) -> None:
    rollout_id = started(sentra, shop.slow_line())
    until(sentra, rollout_id, phase="analysing", verdict="PASS")
    assert sentra("rollout", "advance", rollout_id).code == Exit.OK
    assert until(sentra, rollout_id, step=2)["ordered_bp"] == 10_000


def test_promote_goes_to_the_end(shop: Shop, sentra: Line) -> None:
    rollout_id = started(sentra, shop.slow_line(steps=[10, 20, 70]))
    until(sentra, rollout_id, phase="analysing", verdict="PASS")
    assert sentra("rollout", "promote", rollout_id).code == Exit.OK
    said = sentra("rollout", "watch", rollout_id, "--timeout", "60s", "-o", "json")
    assert said.code == Exit.OK
    assert said.value["verified_bp"] == 10_000


def test_an_aborted_rollout_ends_with_3(shop: Shop, sentra: Line) -> None:
    rollout_id = started(sentra, shop.slow_line())
    said = sentra("rollout", "abort", rollout_id, "--reason", "wrong version")
    assert said.code == Exit.OK
    assert "rolling back to stable" in said.out
    said = sentra("rollout", "watch", rollout_id, "--timeout", "30s")
    assert said.code == Exit.ABORTED
    assert f"sentra rollout retry {rollout_id}" in said.out


def test_a_refused_command_ends_with_5_and_says_what_is_possible(shop: Shop, sentra: Line) -> None:
    rollout_id = started(sentra, shop.slow_line())
    until(sentra, rollout_id, phase="analysing")
    said = sentra("rollout", "resume", rollout_id, "-o", "json")
    assert said.code == Exit.REJECTED
    assert said.out == ""
    assert "resume is refused: it is not paused" in said.err
    assert "possible now: pause, advance, promote, abort" in said.err


def test_evidence_may_be_overridden_only_with_force(shop: Shop, sentra: Line) -> None:
    gates = [{"signal": "log_error_ratio", "slo": "<= 5%", "severe": ">= 90%"}]
    shop.errors = 0.5
    rollout_id = started(sentra, shop.slow_line(gates=gates, pause_timeout="10m", judge="threshold"))
    until(sentra, rollout_id, phase="paused", pause_causes=["fail"])
    said = sentra("rollout", "resume", rollout_id)
    assert said.code == Exit.REJECTED
    assert "resume with force" in said.err
    assert sentra("rollout", "resume", rollout_id, "--force").code == Exit.OK


@pytest.mark.parametrize("command", ["pause", "resume", "advance", "promote", "abort"])
def test_a_rollout_that_has_ended_refuses_every_command(command: str, shop: Shop, sentra: Line) -> None:
    rollout_id = started(sentra, shop.slow_line())
    sentra("rollout", "abort", rollout_id)
    until(sentra, rollout_id, phase="aborted")
    said = sentra("rollout", command, rollout_id)
    assert said.code == Exit.REJECTED
    assert f"{command} is refused: {rollout_id} has ended (aborted); retry starts" in said.err


def test_an_approval_is_an_advance(shop: Shop, sentra: Line) -> None:
    rollout_id = started(sentra, shop.slow_line(approvals=[1]))
    until(sentra, rollout_id, phase="paused", pause_causes=["approval"])
    assert sentra("rollout", "advance", "--reason", "looks good").code == Exit.OK
    until(sentra, rollout_id, verified_bp=1000)


def test_gates_are_changed_in_flight(shop: Shop, sentra: Line) -> None:
    rollout_id = started(sentra, shop.slow_line())
    until(sentra, rollout_id, phase="analysing", verdict="PASS")
    gates = [{"signal": "log_error_ratio", "slo": "<= 25%", "severe": ">= 60%"}]
    looser = shop.policy("looser.yaml", min_step_time="5m", max_step_time="10m", gates=gates)
    said = sentra("rollout", "change-policy", rollout_id, looser, "--reason", "noisy logs")
    assert said.code == Exit.OK, said
    until(sentra, rollout_id, verdict="PASS")
    deadline = time.monotonic() + 20
    while (found := status(sentra, rollout_id))["gates"][0]["limit"] != 0.25:
        assert time.monotonic() < deadline, found
    assert found["gates"][0]["slo"] == 0.25


def test_only_gates_can_be_changed_in_flight(shop: Shop, sentra: Line) -> None:
    rollout_id = started(sentra, shop.slow_line())
    until(sentra, rollout_id, phase="analysing")
    said = sentra("rollout", "change-policy", rollout_id, shop.policy("other.yaml", steps=[50, 50]))
    assert said.code == Exit.REJECTED
    assert "only gates can be changed in flight" in said.err


def test_retry_starts_the_same_again_under_a_new_id(shop: Shop, sentra: Line) -> None:
    old = started(sentra, shop.slow_line())
    refused = sentra("rollout", "retry", old)
    assert refused.code == Exit.REJECTED
    assert "has not ended" in refused.err
    sentra("rollout", "abort", old)
    until(sentra, old, phase="aborted")
    new = started(sentra, ("rollout", "retry", old))
    found = status(sentra, new)
    assert new != old
    assert found["retry_of"] == old
    assert (found["stable"], found["canary"]) == (shop.stable, shop.canary)


@pytest.mark.parametrize("command", ["status", "watch", "pause", "retry"])
def test_an_unknown_id_is_named_with_those_near_it(command: str, shop: Shop, sentra: Line) -> None:
    rollout_id = started(sentra, shop.slow_line())
    said = sentra("rollout", command, rollout_id[:-1])
    assert said.code == Exit.ERROR
    assert f"there is no rollout {rollout_id[:-1]}; did you mean {rollout_id}" in said.err


def test_the_id_may_be_left_out_only_while_one_rollout_is_active(shop: Shop, sentra: Line) -> None:
    assert "no rollout is active" in sentra("rollout", "status").err
    first = started(sentra, shop.slow_line())
    assert sentra("rollout", "status", "-o", "json").value["rollout_id"] == first
    other = Shop(shop.folder)
    second = started(sentra, other.slow_line())
    said = sentra("rollout", "pause")
    assert said.code == Exit.ERROR
    assert "2 rollouts are active" in said.err
    assert first in said.err
    assert second in said.err


def test_brackets_in_an_id_are_text(shop: Shop, sentra: Line) -> None:
    said = sentra("rollout", "status", "[/x]")
    assert said.code == Exit.ERROR
    assert "there is no rollout [/x]" in said.err
