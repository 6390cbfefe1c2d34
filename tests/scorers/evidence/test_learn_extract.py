"""What is remembered of a finished rollout: the judge's own evidence, and whether it was healthy."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from domain.calibration import Calibration, Law, Tier
from domain.decision import CommandKind
from domain.errors import RecordError
from domain.policy import JudgeName, OnInconclusive
from domain.records import Evaluation, SignalInput, TickInput
from domain.rollout import Phase
from domain.signal import Arm, Quality
from scorers.evidence.learn import run as runs
from scorers.evidence.learn.extract import Extracted, extract
from scorers.evidence.learn.run import Run
from scorers.evidence.learn.runs import Finished, history_of
from scorers.evidence.learn.split import canary_against_stable
from scorers.evidence.learn.threshold import log_evidence
from scorers.evidence.margins import margin_window
from tests.scorers.evidence.finished_rollouts import (
    EDGES,
    ERRORS,
    Told,
    Traffic,
    evident,
    finished,
    spec,
)

NAME = "error_rate"


def taught(evaluations: list[Evaluation]) -> Run:
    run = extract(evaluations).run
    assert run is not None
    return run


def ticks_of(evaluations: list[Evaluation]) -> list[tuple[Evaluation, TickInput]]:
    return [(each, each.input) for each in evaluations if isinstance(each.input, TickInput)]


def arm_of(given: TickInput, arm: Arm, signal: str = NAME) -> SignalInput:
    return next(one for one in given.signals if one.signal == signal and one.arm is arm)


def compared(evaluations: list[Evaluation]) -> list[TickInput]:
    """Ticks in which stable had traffic."""
    return [given for _, given in ticks_of(evaluations) if arm_of(given, Arm.STABLE).exposure > 0]


def test_a_run_holds_what_the_judge_was_given_and_nothing_else() -> None:
    evaluations = finished()
    found = taught(evaluations)
    canary, stable = (
        [arm_of(given, arm) for given in compared(evaluations)] for arm in (Arm.CANARY, Arm.STABLE)
    )
    wanted = [
        [each.events for each in canary],
        [each.exposure for each in canary],
        [each.events for each in stable],
        [each.exposure for each in stable],
        [each.half_events for each in stable],
        [each.half_exposure for each in stable],
    ]
    assert len(canary) == found.ticks > 10
    assert found.counts(NAME).tolist() == wanted


def test_latencies_are_counted_beyond_every_bucket_edge() -> None:
    evaluations = finished()
    found = taught(evaluations)
    given = ticks_of(evaluations)[0][1]
    stable = arm_of(given, Arm.STABLE, "latency_ms")
    assert found.edges == {"latency_ms": EDGES}
    for edge, count, half in zip(EDGES, stable.counts, stable.half_counts, strict=True):
        first = found.counts(f"latency_ms>{edge:g}")[:, 0]
        assert first[2:].tolist() == [
            stable.exposure - count,
            stable.exposure,
            stable.half_exposure - half,
            stable.half_exposure,
        ]


def test_evidence_from_a_run_is_the_judges_own_to_the_last_digit() -> None:
    law = Law(
        tau=0.2,
        memory_s=100.0,
        dispersion=(1.0, 1.2, 1.3, 1.4, 1.5, 1.5, 1.5, 1.5, 1.5),
        warmup_margin=((2.0, 1.5, 1.2), (1.1,)),
        has_learnt_warmup=True,
    )
    known = Calibration(tier=Tier.R2, interval_s=5.0, laws={NAME: law}, threshold=50.0)
    rules = evident(gates=(ERRORS,), min_step_time_s=90.0)
    evaluations = finished(traffic=Traffic(worse=1.5, has_halves=False), rules=rules, calibration=known)
    found = taught(evaluations)
    history = history_of([Finished(rollout_id="r-1", is_healthy=True, run=found)], [NAME])
    again = log_evidence(
        canary_against_stable(history.series[NAME]),
        law,
        history,
        window_s=margin_window(rules.warmup_s),
        has_learnt_warmup=True,
    )
    said = [each.scores[0].evidence for each, _ in ticks_of(evaluations)]
    live = [one.log_e_fail for one in said if one is not None][: found.ticks]
    assert len(live) == found.ticks > 30
    assert np.round(again[0], 9).tolist() == pytest.approx(live, abs=2e-9)
    assert max(live) > min(live) + 0.3


def test_a_step_is_warm_when_its_margin_no_longer_applies() -> None:
    found = taught(finished(rules=evident(min_step_time_s=90.0)))
    is_warm, opens, ends = found.marks_by_tick()
    step = found.steps_by_tick()
    assert opens.nonzero()[0].tolist() == [0, int((step == 0).sum())]
    assert (ends.nonzero()[0] - opens.nonzero()[0]).tolist() == [8, 8], "forty seconds of five"
    assert is_warm.tolist() == [int(at) >= 8 for of in (0, 1) for at in range(int((step == of).sum()))]


def test_ticks_that_are_no_evidence_are_left_out_where_they_are() -> None:
    told = Told(spec(rules=evident(min_step_time_s=90.0)), Traffic(), seed=5)
    told.obey()
    told.obey()
    for _ in range(3):
        told.tick()
    told.spoil = lambda signals: tuple(
        replace(one, quality=int(Quality.ASSUMED)) if one.arm is Arm.CANARY else one for one in signals
    )
    told.tick()
    told.spoil = lambda signals: ()
    told.tick()
    told.spoil = lambda signals: signals
    found = taught(told.to_the_end())
    assert found.steps_by_tick()[:6].tolist() == [0, 0, 0, -1, -1, 0]
    assert found.counts(NAME)[:, 3:5].tolist() == [[0.0, 0.0]] * 6
    assert (found.counts(NAME)[3, :3] > 0).all()


def test_stable_without_known_replicas_has_no_halves() -> None:
    found = taught(finished(traffic=Traffic(has_halves=False)))
    assert not found.counts(NAME)[4:].any()
    assert found.counts(NAME)[3].all()


def test_what_comes_at_all_traffic_is_not_kept() -> None:
    evaluations = finished()
    assert taught(evaluations).ticks == len(compared(evaluations)) < len(ticks_of(evaluations))


def test_a_rollout_that_waited_over_night_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scorers.evidence.learn.extract.LONGEST", 7)
    assert taught(finished()).ticks == 7


def test_a_promoted_rollout_is_healthy_whichever_judge_promoted_it() -> None:
    by_evidence = extract(finished())
    by_threshold = extract(finished(rules=evident(judge=JudgeName.THRESHOLD)))
    assert (by_evidence.phase, by_evidence.is_healthy) == (Phase.PROMOTED, True)
    assert (by_threshold.phase, by_threshold.is_healthy) == (Phase.PROMOTED, True)
    assert by_threshold.run is not None and by_threshold.run.counts(NAME).any()


def test_a_rollout_that_was_rolled_back_is_not_healthy_but_shows_stable() -> None:
    found = extract(finished(traffic=Traffic(worse=30.0)))
    assert (found.phase, found.is_healthy) == (Phase.ROLLED_BACK, False)
    assert found.run is not None and found.run.counts(NAME)[5].any()


def meddled(kind: CommandKind, **more: Any) -> Extracted:
    told = Told(spec(), Traffic(), seed=6)
    told.obey()
    told.obey()
    for _ in range(6):
        told.tick()
    told.command(kind, **more)
    if kind is CommandKind.PAUSE:
        told.command(CommandKind.RESUME)
    return extract(told.to_the_end())


def test_whoever_overrides_the_evidence_makes_no_healthy_rollout() -> None:
    looser = evident(gates=(replace(ERRORS, slo=0.1),))
    assert meddled(CommandKind.PAUSE).is_healthy, "a look at the logs changes nothing"
    for kind, more in (
        (CommandKind.ADVANCE, {"force": True}),
        (CommandKind.ADVANCE, {}),
        (CommandKind.PROMOTE, {"force": True}),
        (CommandKind.CHANGE_POLICY, {"policy": replace(looser, gates=looser.gates)}),
    ):
        found = meddled(kind, **more)
        assert (found.phase, found.is_healthy) == (Phase.PROMOTED, False), kind


def test_an_approved_step_is_healthy() -> None:
    told = Told(spec(rules=evident(approvals=(2,))), Traffic(), seed=7)
    told.obey()
    told.obey()
    while told.fold.state.phase is not Phase.PAUSED:
        told.tick()
    told.command(CommandKind.ADVANCE)
    assert extract(told.to_the_end()).is_healthy


def test_a_step_taken_unproven_makes_no_healthy_rollout() -> None:
    rules = evident(
        on_inconclusive=OnInconclusive.ADVANCE_UNPROVEN, min_step_time_s=10.0, max_step_time_s=45.0
    )
    found = extract(finished(traffic=Traffic(per_tick=300.0, bad_share=0.015), rules=rules))
    assert (found.phase, found.is_healthy) == (Phase.PROMOTED, False)


def test_a_rollout_is_retraced_as_it_went_and_no_judge_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluations = finished()

    def refuse(name: object) -> None:
        raise AssertionError(f"{name} was asked")

    monkeypatch.setattr("scorers.fold.judge_named", refuse)
    assert extract(evaluations).is_healthy


def test_unfinished_rollouts_say_where_they_stand() -> None:
    half = finished()[:9]
    assert not extract(half).phase.is_final
    assert not extract(half).is_healthy
    assert extract([]) == Extracted(phase=Phase.QUEUED, run=None, is_healthy=False)


def test_a_history_without_its_beginning_is_refused() -> None:
    with pytest.raises(RecordError, match="not where the rollout begins"):
        extract(finished()[1:])


def test_a_rollout_without_telemetry_says_nothing() -> None:
    told = Told(spec(rules=evident(judge=JudgeName.THRESHOLD)), Traffic(), seed=8)
    told.spoil = lambda signals: ()
    told.obey()
    told.obey()
    told.tick()
    told.command(CommandKind.ABORT)
    assert extract(told.to_the_end()) == Extracted(phase=Phase.ABORTED, run=None, is_healthy=False)


def test_runs_are_small_and_come_back_as_they_were() -> None:
    found = taught(finished())
    stored = runs.to_bytes(found)
    assert runs.from_bytes(stored) == found
    assert len(stored) < 2_000 < len(msgspec.msgpack.encode(found))


def test_other_bytes_are_refused() -> None:
    with pytest.raises(RecordError, match="are no finished rollout's run"):
        runs.from_bytes(b"\x00poison")
    with pytest.raises(RecordError, match="a run of version 99 cannot be read"):
        runs.from_bytes(runs.to_bytes(replace(taught(finished()), schema=99)))


def test_edges_that_only_some_ticks_have_are_kept_with_their_own_exposure() -> None:
    told = Told(spec(), Traffic(), seed=9)

    def without_first_edge(signals: tuple[SignalInput, ...]) -> tuple[SignalInput, ...]:
        return tuple(
            replace(one, edges=one.edges[1:], counts=one.counts[1:], half_counts=one.half_counts[1:])
            if one.edges
            else one
            for one in signals
        )

    told.obey()
    told.obey()
    told.tick()
    told.spoil = without_first_edge
    told.tick()
    told.spoil = lambda signals: signals
    found = taught(told.to_the_end())
    assert found.counts("latency_ms>50")[3, :3].astype(bool).tolist() == [True, False, True]
    assert found.counts("latency_ms>100")[3, :3].all()
