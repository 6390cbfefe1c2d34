"""Real requests divided into arms: by hand on a made-up day, and on the real one where the data is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from bench.judging.nezha import (
    DAY,
    Fault,
    Requests,
    Traces,
    around_fault,
    data_folder,
    healthy_stream,
    load,
    stretches,
)
from bench.judging.nezha_cells import (
    EFFECTS,
    FAULT_WEIGHT,
    LatencyCounts,
    Stage,
    effect_cells,
    fault_cells,
    salts_of,
    tail,
    times,
    uniform,
)
from bench.judging.nezha_figures import judge_effects, judge_faults, real_json
from tests.bench.trivial_rules import At

COLUMNS = tuple(LatencyCounts.__dataclass_fields__)
FAULT_AT_S = 1_000_100.0


def steady(start_s: float, end_s: float, ms: float, per_s: int = 8, first_key: int = 0) -> Requests:
    start = np.arange(start_s, end_s, 1 / per_s)
    wobble = 1 + np.arange(len(start)) % 7 / 100
    keys = np.arange(first_key, first_key + len(start), dtype=np.uint64)
    return Requests(start_s=start, key=keys, ms=ms * wobble)


def joined(*parts: Requests) -> Requests:
    return Requests(
        start_s=np.concatenate([part.start_s for part in parts]),
        key=np.concatenate([part.key for part in parts]),
        ms=np.concatenate([part.ms for part in parts]),
    )


@pytest.fixture(scope="module")
def day() -> Traces:
    """100 s of calm, a fault that doubles latencies for 60 s, and an hour later 60 s of calm again."""
    calm = steady(1_000_000.0, FAULT_AT_S, 100.0)
    bad = steady(FAULT_AT_S, FAULT_AT_S + 60, 200.0, first_key=5_000)
    again = steady(1_003_600.0, 1_003_660.0, 100.0, first_key=9_000)
    fault = Fault(at_s=FAULT_AT_S, kind="network_delay", pod="pod")
    return Traces(root=joined(calm, bad, again), pods={"pod": joined(calm, bad)}, faults=(fault,))


def test_a_silence_ends_a_stretch(day: Traces) -> None:
    found = np.array(stretches(day.root))
    assert found == pytest.approx(np.array([[1_000_000.0, 1_000_159.875], [1_003_600.0, 1_003_659.875]]))


def test_the_healthy_stream_leaves_the_fault_out_and_closes_the_gap(day: Traces) -> None:
    stream = healthy_stream(day)
    assert len(stream) == 800 + 440, "stretches are cut to whole ticks"
    assert stream.start_s[-1] < 155.0
    assert np.all(np.diff(stream.start_s) > 0)
    assert stream.ms.max() < 150


def test_a_fault_is_lined_up_with_the_seconds_before_it(day: Traces) -> None:
    around = around_fault(day, day.faults[0])
    assert around == pytest.approx((FAULT_AT_S - 59.875, FAULT_AT_S, 59.875))


def test_a_fault_without_minutes_before_it_is_not_used(day: Traces) -> None:
    alone = Traces(root=steady(FAULT_AT_S, FAULT_AT_S + 60, 200.0), pods=day.pods, faults=day.faults)
    assert around_fault(alone, day.faults[0]) is None


def test_hashes_are_uniform_and_independent_under_salts() -> None:
    shares = uniform(np.arange(20_000, dtype=np.uint64), np.arange(4))
    assert shares.shape == (4, 20_000)
    assert np.all((shares >= 0) & (shares < 1))
    assert np.quantile(shares, [0.1, 0.5, 0.9], axis=1) == pytest.approx(
        np.array([[0.1] * 4, [0.5] * 4, [0.9] * 4]), abs=0.015
    )
    assert np.abs(np.corrcoef(shares) - np.eye(4)).max() < 0.03


def stage(block_s: float = 0.0, weight: float = 0.25) -> Stage:
    requests = steady(0.0, 50.0, 100.0)
    edges = np.array([100.5, 150.0])
    return Stage(canary=requests, stable=requests, weights=np.full(10, weight), edges=edges, block_s=block_s)


def test_every_request_is_in_exactly_one_arm() -> None:
    counts = stage().divided(salts_of(1, 0, 50))
    assert np.all(counts.canary_n + counts.stable_n == 40)
    over = stage().canary.ms > 100.5
    assert np.all((counts.canary_over + counts.stable_over)[..., 0].sum(axis=1) == over.sum())
    assert counts.canary_n.mean() == pytest.approx(10.0, rel=0.05)
    assert counts.half_n.mean() == pytest.approx(15.0, rel=0.05)
    assert np.all(counts.half_over <= counts.stable_over)


def test_many_rollouts_are_the_same_as_one_at_a_time() -> None:
    together = stage().divided(salts_of(1, 0, 150))
    alone = stage().divided(salts_of(1, 0, 150)[120:121])
    for name in COLUMNS:
        assert np.array_equal(getattr(together, name)[120], getattr(alone, name)[0])


def test_sticky_division_keeps_a_block_of_seconds_together() -> None:
    counts = stage(block_s=1.0).divided(salts_of(1, 0, 200))
    assert np.all(counts.canary_n % 8 == 0), "eight requests a second go to one arm"
    assert counts.canary_n.mean() == pytest.approx(10.0, rel=0.08)


def test_slowdowns_touch_the_canary_only() -> None:
    salts = salts_of(1, 0, 100)
    plain, slow = stage().divided(salts), stage().divided(salts, times(2.0))
    assert np.array_equal(plain.stable_over, slow.stable_over)
    assert np.array_equal(slow.canary_over[..., 1], slow.canary_n), "200 ms is over 150 ms"
    assert plain.canary_over[..., 1].sum() == 0
    some = stage().divided(salts, tail(0.05, 4.0))
    assert some.canary_over[..., 1].sum() / some.canary_n.sum() == pytest.approx(0.05, rel=0.15)


def test_effects_come_with_an_a_a_cell_and_share_what_is_learnt(day: Traces) -> None:
    cells = list(effect_cells(day, "hash", seed=1, healthy=6, slowed=4))
    assert [cell.name for cell in cells] == ["A/A", *EFFECTS]
    assert [cell.live.rollouts for cell in cells] == [6, 4, 4, 4, 4]
    assert all(cell.history is cells[0].history and cell.before is cells[0].before for cell in cells)
    assert cells[0].live.canary_over.shape == (6, 31, 5)
    assert cells[0].step_ticks == 7
    assert cells[0].before.canary_n.sum() == 0
    assert cells[0].before.stable_n.shape == (1, 31)
    assert not np.array_equal(cells[0].live.canary_n[:4], cells[0].history.canary_n[:4])


def test_a_fault_is_seen_by_users_and_by_its_pod(day: Traces) -> None:
    found = list(fault_cells(day, seed=1, rollouts=5))
    assert [cells.view for cells in found] == ["root", "pod"]
    for cells in found:
        faulty, healthy = cells.faulty.live, cells.healthy.live
        assert np.all(faulty.canary_over[..., -1] == faulty.canary_n), "twice as slow is over every edge"
        assert np.all(healthy.canary_over[..., -1] < healthy.canary_n)
        share = faulty.canary_n.sum() / (faulty.canary_n.sum() + faulty.stable_n.sum())
        assert share == pytest.approx(FAULT_WEIGHT, abs=0.03)


def test_figures_of_the_real_track_count_what_was_rolled_back(day: Traces) -> None:
    rules = [At("never", -1), At("at_once", 0)]
    results = judge_effects(day, "hash", rules, seed=1, healthy=6, slowed=4)
    board = real_json(day, [*results, *judge_faults(day, rules, seed=1, rollouts=5)])
    never, at_once = board["judges"]["never"], board["judges"]["at_once"]
    assert (board["faults"], board["effects"]) == (1, list(EFFECTS))
    assert never["divisions"]["hash"]["false_rollback_pct"] == 0
    assert never["divisions"]["hash"]["median_delay_s"]["x2"] == 31 * 5
    assert never["faults"]["detected"] == 0
    assert at_once["divisions"]["hash"]["false_rollback_pct"] == 100
    assert at_once["divisions"]["hash"]["detected_pct"]["x1.1"] == 100
    assert at_once["faults"]["detected"] == 1
    assert at_once["faults"]["by_type"]["network_delay"]["pod"]["median_delay_s"] == 5


def test_answers_that_are_no_ticks_are_refused(day: Traces) -> None:
    with pytest.raises(ValueError, match=r"in -1\.\.30"):
        judge_effects(day, "hash", [At("wrong", 31)], seed=1, healthy=2, slowed=2)


def test_a_day_is_read_with_its_users_requests_and_its_faulty_pods(tmp_path: Path) -> None:
    folder = tmp_path / DAY / "trace"
    folder.mkdir(parents=True)
    fault = {"inject_time": f"{DAY} 01:00:30", "inject_pod": "pod", "inject_type": "return"}
    (tmp_path / DAY / f"{DAY}-fault_list.json").write_text(json.dumps({"01": [fault]}))
    header = "TraceID,SpanID,ParentID,PodName,OperationName,StartTimeUnixNano,EndTimeUnixNano,Duration\n"
    lines = ["a,1,root,front,op,2000000000,0,1500", "a,2,1,pod,op,2100000000,0,700", "a,3,1,other,op,1,0,1"]
    for minute in ("01_00", "01_01"):  # the second file repeats the first's spans
        with gzip.open(folder / f"{minute}_trace.csv.gz", "wt") as file:
            file.write(header + "\n".join(lines) + "\n")
    traces = load(tmp_path)
    assert (traces.root.start_s.tolist(), traces.root.ms.tolist()) == ([2.0], [1.5])
    assert (traces.pods["pod"].start_s.tolist(), traces.pods["pod"].ms.tolist()) == ([2.1], [0.7])
    assert traces.faults[0].at_s == 1661130030.0, "inject_time is UTC"


@pytest.mark.skipif(data_folder() is None, reason="SENTRA_DATA names no folder with nezha/rca_data in it")
def test_the_real_day_has_enough_healthy_requests_and_faults() -> None:
    folder = data_folder()
    assert folder is not None
    traces = load(folder)
    stream = healthy_stream(traces)
    rate = len(stream) / stream.start_s[-1]
    assert (len(traces.faults), len(stretches(traces.root))) == (24, 22)
    assert 6_000 < len(stream) < 7_000 and 7.5 < rate < 8.5
    cells = list(fault_cells(traces, seed=1, rollouts=2))
    assert len({cell.fault for cell in cells}) == 12
    assert {cell.view for cell in cells} == {"root", "pod"}
