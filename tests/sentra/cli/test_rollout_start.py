"""``sentra rollout start``: how it begins, how ``--wait`` ends, and what it refuses."""

from __future__ import annotations

from pathlib import Path

from sentra.cli.exits import Exit
from tests.sentra.cli.conftest import Line
from tests.sentra.cli.shop import Shop


def test_start_prints_the_id_and_what_to_do_next(shop: Shop, sentra: Line) -> None:
    said = sentra(*shop.slow_line())
    assert said.code == Exit.OK
    first, second = said.out.splitlines()
    rollout_id = first.removeprefix("started ")
    assert rollout_id.startswith(f"{shop.service}-20")
    assert second == f"next: sentra rollout watch {rollout_id}"


def test_start_prints_one_json_value_when_asked(shop: Shop, sentra: Line) -> None:
    said = sentra(*shop.slow_line("--id", f"{shop.service}-a", "-o", "json"))
    assert said.value["rollout_id"] == f"{shop.service}-a"
    assert said.value["accepted"] is True


def test_waiting_for_a_healthy_canary_ends_with_0(shop: Shop, sentra: Line) -> None:
    said = sentra(*shop.start_line("--wait", "--timeout", "60s"))
    assert said.code == Exit.OK, said
    assert "ADVANCE to 100 %" in said.err
    assert said.out.splitlines()[-1] == "promoted"


def test_waiting_for_a_failing_canary_ends_with_2_and_one_json_value(shop: Shop, sentra: Line) -> None:
    shop.errors = 0.8
    said = sentra(*shop.start_line("--wait", "--timeout", "60s", "--output", "json"))
    assert said.code == Exit.ROLLED_BACK, said
    assert said.value["phase"] == "rolled_back"
    assert said.value["exit_code"] == 2
    assert said.value["verified_bp"] == 0
    assert any(incident["kind"] == "severe" for incident in said.value["incidents"])


def test_waiting_for_a_target_that_does_not_fit_ends_with_1(shop: Shop, sentra: Line) -> None:
    assert sentra(*shop.start_line("--wait", "--timeout", "60s")).code == Exit.OK
    shop.canary = "never-heard-of"
    said = sentra(*shop.start_line("--wait", "--timeout", "60s", "-o", "json"))
    assert said.code == Exit.ERROR
    assert said.value["phase"] == "failed"
    assert "never-heard-of" in said.value["reason"]


def test_waiting_ends_with_4_when_the_time_out_comes_first(shop: Shop, sentra: Line) -> None:
    said = sentra(*shop.slow_line("--wait", "--timeout", "1s"))
    assert said.code == Exit.STILL_RUNNING
    assert "goes on: sentra rollout watch" in said.out


def test_waiting_ends_with_8_when_a_person_is_needed(shop: Shop, sentra: Line) -> None:
    said = sentra(*shop.start_line("--wait", "--timeout", "60s", "-o", "json", approvals=[1]))
    assert said.code == Exit.WAITING
    assert said.value["pause_causes"] == ["approval"]
    assert said.value["waits_for_person"] is True


def test_a_second_rollout_of_a_service_is_refused_with_5(shop: Shop, sentra: Line) -> None:
    first = sentra(*shop.slow_line("-o", "json")).value["rollout_id"]
    said = sentra(*shop.slow_line())
    assert said.code == Exit.REJECTED
    assert first in said.err
    assert said.out == ""


def test_an_id_is_used_once(shop: Shop, sentra: Line) -> None:
    rollout_id = f"{shop.service}-once"
    assert sentra(*shop.start_line("--id", rollout_id, "--wait", "--timeout", "60s")).code == Exit.OK
    said = sentra(*shop.start_line("--id", rollout_id))
    assert said.code == Exit.REJECTED
    assert "was used before" in said.err


def test_an_id_that_cannot_be_typed_is_refused(shop: Shop, sentra: Line) -> None:
    said = sentra(*shop.start_line("--id", "a b"))
    assert said.code == Exit.ERROR
    assert "got 'a b'" in said.err


def test_a_policy_of_another_service_is_refused_naming_both(shop: Shop, sentra: Line) -> None:
    said = sentra(*shop.start_line(service="else", environment="prod"))
    assert said.code == Exit.ERROR
    assert f"the policy of else in prod, not of {shop.service} in test" in said.err


def test_a_missing_policy_is_named(shop: Shop, sentra: Line) -> None:
    said = sentra(*shop.start_line("--policy", "not-there.yaml"))
    assert said.code == Exit.ERROR
    assert "cannot read not-there.yaml: No such file" in said.err


def test_the_policy_of_the_folder_is_the_default(shop: Shop, sentra: Line) -> None:
    shop.policy("policy.yaml", min_step_time="5m", max_step_time="10m")
    where = ("--service", shop.service, "--env", "test")
    assert sentra("rollout", "start", *where, "--stable", shop.stable, "--canary", shop.canary).code == 0


def test_a_policy_error_names_file_and_line(shop: Shop, sentra: Line) -> None:
    said = sentra(*shop.start_line(pass_count=0))
    assert said.code == Exit.ERROR
    assert f"{shop.service}.yaml: line 9: pass_count must be at least 1, got 0" in said.err


def test_a_source_that_is_not_configured_is_named(shop: Shop, sentra: Line) -> None:
    said = sentra(*shop.start_line(telemetry={"logs": "loki"}))
    assert said.code == Exit.ERROR
    assert "telemetry.logs names the source 'loki'; configured are: app-logs" in said.err


def test_a_time_out_without_a_unit_is_refused_before_anything_starts(shop: Shop, sentra: Line) -> None:
    said = sentra(*shop.start_line("--wait", "--timeout", "5"))
    assert said.code == Exit.ERROR
    assert "--timeout: a duration is a number with a unit" in said.err
    assert shop.service not in sentra("rollout", "list", "--all").out


def test_a_missing_option_is_an_error_and_never_a_roll_back(shop: Shop, sentra: Line) -> None:
    said = sentra("rollout", "start", "--service", shop.service)
    assert said.code == Exit.ERROR
    assert "Missing option '--env'" in said.err


def test_without_a_running_sentra_the_exit_code_is_7(nowhere: Path, sentra: Line) -> None:
    said = sentra(*Shop(nowhere).start_line())
    assert said.code == Exit.UNREACHABLE
    assert "no Sentra runs in" in said.err
    assert "sentra up" in said.err
