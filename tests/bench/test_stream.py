"""The benchmark of judging: it runs, its work is really done, and its keys are documented."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from bench import _fleet as fleet
from bench import stream
from bench.stream import Figures
from domain.records import Report
from domain.signal import REQUESTS, Arm, Channel
from streams.codec import unpack_samples

README = Path(stream.__file__).parent / "README.md"


@pytest.mark.server
@pytest.mark.slow
async def test_a_short_run_judges_every_tick_and_documents_every_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench._fleet.WINDOW_TICKS", 1)
    monkeypatch.setattr("bench._stage.WINDOW_TICKS", 1)
    figures = await stream.measure(tmp_path, rollouts=20, ticks=2, search_s=0.0)
    assert figures.decisions >= 3
    assert 0 < figures.p50_ms <= figures.p99_ms
    assert 0 < figures.decision_p50_ms <= figures.decision_p99_ms
    assert figures.core_share > 0
    assert figures.ratio_to_bare_loop > 0
    assert figures.max_rollouts == 20
    for key in asdict(figures):
        assert f"`{key}`" in README.read_text()


def test_every_goal_is_a_key() -> None:
    assert set(stream.GOALS) <= set(Figures.__dataclass_fields__)


def test_a_block_reports_every_rollout_on_every_channel_with_eight_samples() -> None:
    frames = [frame for _, frame in fleet.Block(range(10), partitions=4).at(1_700_000_005.0)]
    samples = [sample for frame in frames for sample in unpack_samples(frame)]
    assert len(samples) == 10 * fleet.SAMPLES_PER_TICK
    assert {(sample.start, sample.end) for sample in samples} == {(1_700_000_000.0, 1_700_000_005.0)}
    for channel in Channel:
        reports: list[Report] = [frame.report for frame in frames if frame.channel is channel]
        told = sorted(name for report in reports for name in report.rollouts)
        assert told == [fleet.rollout_id(number) for number in range(10)]


def test_only_the_canaries_of_failing_rollouts_fail() -> None:
    name = fleet.rollout_id(3)
    block = fleet.Block(range(10), partitions=4)
    samples = [s for _, frame in block.at(5.0, {name}) for s in unpack_samples(frame) if s.signal == REQUESTS]
    failing = {(s.rollout_id, s.arm) for s in samples if s.events == s.exposure}
    assert failing == {(name, Arm.CANARY)}
    assert np.mean([s.events / s.exposure for s in samples if s.rollout_id != name]) < 0.01
