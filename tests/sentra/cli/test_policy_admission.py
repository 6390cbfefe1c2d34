"""``sentra rollout start`` with traffic that cannot decide: refused, or started with a note that stays."""

from __future__ import annotations

from domain.calibration import Calibration, Law, Tier
from sentra.cli.connect import calibrations_of, settings_of
from sentra.cli.exits import Exit
from store.calibrations import Place
from tests.sentra.cli.conftest import Line
from tests.sentra.cli.shop import Shop


def test_a_rollout_that_its_traffic_cannot_decide_is_refused(shop: Shop, sentra: Line) -> None:
    said = sentra(*shop.start_line("--rps", "0.5"))
    assert said.code == Exit.REJECTED
    assert "step 1 (10 %) cannot decide at 0.5 requests/s" in said.err
    assert "this decides: steps: [10, 20, 30, 40], max_step_time: 15m or max_step_time: 1h30m" in said.err
    assert "--accept-undecidable starts it as it is" in said.err
    assert sentra("rollout", "list", "-o", "json").value == []


def test_accepting_that_starts_it_and_the_status_says_which_step_may_hold(shop: Shop, sentra: Line) -> None:
    said = sentra(*shop.slow_line("--rps", "0.5", "--accept-undecidable", "-o", "json"))
    assert said.code == Exit.OK
    assert said.value["accepted"] is True
    rollout_id = said.value["rollout_id"]
    status = sentra("rollout", "status", rollout_id)
    assert "may hold   step 1 (10 %): too little traffic to decide within 10m" in status.out
    assert sentra("rollout", "status", rollout_id, "-o", "json").value["undecidable"] == [1]


def test_enough_traffic_leaves_no_note(shop: Shop, sentra: Line) -> None:
    said = sentra(*shop.slow_line("--rps", "100", "-o", "json"))
    assert said.code == Exit.OK
    status = sentra("rollout", "status", said.value["rollout_id"])
    assert "may hold" not in status.out


def test_unknown_traffic_is_admitted(shop: Shop, sentra: Line) -> None:
    assert sentra(*shop.slow_line()).code == Exit.OK


def test_what_was_learnt_of_a_service_tells_its_traffic_and_its_rates(shop: Shop, sentra: Line) -> None:
    known = Calibration(
        tier=Tier.R2,
        interval_s=1.0,
        laws={"log_error_ratio": Law()},
        rates={"log_error_ratio": 0.012},
        rps=0.5,
        runs=30,
    )
    place = Place(service=shop.service, environment="test", interval_s=1.0)
    calibrations_of(settings_of(None)).add(place, known)
    checked = sentra("policy", "check", shop.policy(), "--learnt")
    assert checked.code == Exit.REJECTED
    assert "0.5 requests/s; tier R2: learnt from finished healthy rollouts of this service" in checked.out
    assert "log_error_ratio 1.2 % (learnt)" in checked.out
    started = sentra(*shop.start_line())
    assert started.code == Exit.REJECTED
    assert "step 1 (10 %) cannot decide at 0.5 requests/s" in started.err


def test_learning_nothing_yet_leaves_the_assumptions(shop: Shop, sentra: Line) -> None:
    said = sentra("policy", "check", shop.policy(), "--learnt", "--rps", "100")
    assert said.code == Exit.OK
    assert "(assumed: a fifth of the limit)" in said.out
