"""The file-tail source on real files."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from domain.clock import SystemClock
from domain.errors import SourceRejected, SourceUnavailable
from domain.signal import Arm, Channel, Quality, Sample
from streams.pollers.base import target_of
from streams.pollers.tail import TailSettings, TailSource, seconds_of
from tests.streams.pollers.rollouts import gate, spec

TARGET = target_of(spec(logs="files", gates=(gate("log_error_ratio"),)), Channel.LOGS)
NOON = 1_700_000_000.0
TICK = 5.0


class Scene:
    """A log file, a source that tails it, and a clock that stands at the last tick's end."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.path = folder / "app.jsonl"
        self.path.touch()
        settings = {"kind": "tail", "files": [str(self.path)], **options}
        self.source = TailSource("files", TailSettings.read("files", settings), SystemClock())
        self.end = NOON

    def write(self, *lines: object, path: Path | None = None) -> None:
        with (path or self.path).open("a") as file:
            for each in lines:
                file.write(each if isinstance(each, str) else json.dumps(each) + "\n")

    async def tick(self, ticks: int = 1) -> dict[Arm, Sample]:
        self.end += TICK * ticks
        fetched = await self.source.fetch([TARGET], self.end, TICK)
        return {each.arm: each for each in fetched.samples}

    async def counts(self, ticks: int = 1) -> tuple[float, float]:
        """Bad lines and lines of the canary in the next tick."""
        sample = (await self.tick(ticks))[Arm.CANARY]
        return sample.events, sample.exposure


def line(after: float, version: str = "v2", level: str = "info") -> dict[str, object]:
    """A line written ``after`` seconds after noon."""
    return {"ts": NOON + after, "level": level, "version": version, "msg": "x"}


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path)
    await scene.tick()  # the first reading; the next tick is [5, 10)
    yield scene
    await scene.source.close()


async def test_lines_are_counted_by_version_and_level(scene: Scene) -> None:
    scene.write(line(6), line(6.1, level="ERROR"), line(7, level="Critical"), line(8, level="fatal"))
    scene.write(line(6, "v1"), line(7, "v1", "warning"), line(7, "v3", "error"))
    samples = await scene.tick()
    assert (samples[Arm.CANARY].events, samples[Arm.CANARY].exposure) == (3.0, 4.0)
    assert (samples[Arm.STABLE].events, samples[Arm.STABLE].exposure) == (0.0, 2.0)
    assert (samples[Arm.CANARY].start, samples[Arm.CANARY].end) == (NOON + 5, NOON + 10)
    assert samples[Arm.CANARY].quality == 0


async def test_the_first_reading_is_empty_and_ignores_what_was_written_before(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.write(line(1, level="error"), line(2, level="error"))
    first = await scene.tick()
    assert (first[Arm.CANARY].exposure, first[Arm.CANARY].quality) == (0.0, int(Quality.FIRST))
    assert await scene.counts() == (0.0, 0.0)
    await scene.source.close()


async def test_a_version_without_lines_in_a_living_file_wrote_none(scene: Scene) -> None:
    samples = await scene.tick()
    assert {(each.events, each.exposure, each.quality) for each in samples.values()} == {(0.0, 0.0, 0)}
    assert set(samples) == set(Arm)


async def test_a_line_of_the_next_tick_waits_for_it(scene: Scene) -> None:
    scene.write(line(9), line(10.0, level="error"), line(11))
    assert await scene.counts() == (0.0, 1.0)
    assert await scene.counts() == (1.0, 2.0)


async def test_a_line_too_late_for_its_tick_is_counted_in_the_present_one(scene: Scene) -> None:
    assert await scene.counts() == (0.0, 0.0)
    scene.write(line(6, level="error"), line(11))
    assert await scene.counts() == (1.0, 2.0)


async def test_a_line_far_ahead_of_the_clock_or_without_time_is_of_now(scene: Scene) -> None:
    scene.write(line(3600, level="error"), {"version": "v2", "level": "info"}, line(6) | {"ts": "noon"})
    assert await scene.counts() == (1.0, 3.0)
    assert await scene.counts() == (0.0, 0.0)


async def test_a_half_written_line_is_counted_when_it_is_whole(scene: Scene) -> None:
    text = json.dumps(line(6, level="error")) + "\n"
    scene.write(text[:20])
    assert await scene.counts() == (0.0, 0.0)
    scene.write(text[20:])
    assert await scene.counts() == (1.0, 1.0)
    assert scene.source.unreadable == 0


async def test_a_rotated_file_is_read_to_its_end_and_the_new_one_from_its_beginning(scene: Scene) -> None:
    scene.write(line(6))
    os.rename(scene.path, scene.path.with_suffix(".1"))
    scene.write(line(7, level="error"), path=scene.path.with_suffix(".1"))
    scene.write(line(8))
    assert await scene.counts() == (1.0, 3.0)
    scene.write(line(11))
    assert await scene.counts() == (0.0, 1.0)


async def test_a_truncated_file_is_read_from_its_beginning(scene: Scene) -> None:
    scene.write(line(6), line(7))
    assert await scene.counts() == (0.0, 2.0)
    os.truncate(scene.path, 0)
    scene.write(line(11, level="error"))
    assert await scene.counts() == (1.0, 1.0)


async def test_lines_that_are_no_json_objects_are_numbered_and_otherwise_ignored(scene: Scene) -> None:
    scene.write("Traceback (most recent call last):\n", "\n", "[1, 2]\n", "\x00\x01\n", {"level": "error"})
    scene.write(line(6))
    assert await scene.counts() == (0.0, 1.0)
    assert scene.source.unreadable == 4


async def test_a_file_in_which_nothing_was_ever_readable_is_a_problem(scene: Scene) -> None:
    scene.write("one\n", "two\n")
    with pytest.raises(SourceRejected, match="none of 2 lines is a JSON object with version"):
        await scene.tick()


async def test_a_missing_file_is_a_problem_and_its_return_makes_up_for_it(scene: Scene) -> None:
    scene.path.unlink()
    with pytest.raises(SourceUnavailable, match=r"no such file: .*app\.jsonl"):
        await scene.tick()
    scene.write(line(7), line(12, level="error"))
    sample = (await scene.tick())[Arm.CANARY]
    assert (sample.events, sample.exposure, sample.quality) == (1.0, 2.0, int(Quality.SPANS))
    assert (sample.start, sample.end) == (NOON + 5, NOON + 15)


async def test_one_of_two_files_missing_makes_counts_partial(tmp_path: Path) -> None:
    here = tmp_path / "app.jsonl"
    scene = Scene(tmp_path, files=[str(here), str(tmp_path / "other-*.jsonl")])
    await scene.tick()
    scene.write(line(6))
    sample = (await scene.tick())[Arm.CANARY]
    assert (sample.exposure, sample.quality) == (1.0, int(Quality.PARTIAL))
    scene.write(line(11), path=tmp_path / "other-1.jsonl")
    sample = (await scene.tick())[Arm.CANARY]
    assert (sample.exposure, sample.quality) == (1.0, 0), "a file that appears is read from its beginning"
    await scene.source.close()


async def test_a_missed_tick_is_made_up_by_the_next(scene: Scene) -> None:
    scene.write(line(6), line(12))
    sample = (await scene.tick(ticks=2))[Arm.CANARY]
    assert (sample.start, sample.exposure, sample.quality) == (NOON + 5, 2.0, int(Quality.SPANS))


async def test_what_was_written_while_nobody_asked_is_not_evidence(scene: Scene) -> None:
    scene.write(*(line(600, level="error") for _ in range(50)))
    again = (await scene.tick(ticks=200))[Arm.CANARY]
    assert (again.events, again.quality) == (0.0, int(Quality.FIRST))
    assert await scene.counts() == (0.0, 0.0)


async def test_intervals_count_the_same_lines_each_for_itself(scene: Scene) -> None:
    await scene.source.fetch([TARGET], scene.end, 1.0)
    scene.write(line(5.5), line(6.5, level="error"))
    quick = await scene.source.fetch([TARGET], NOON + 6, 1.0)
    assert {each.arm: each.exposure for each in quick.samples}[Arm.CANARY] == 1.0
    assert await scene.counts() == (1.0, 2.0)


async def test_services_that_share_version_names_are_told_apart(tmp_path: Path) -> None:
    scene = Scene(tmp_path, service_field="svc", version="{service}-{version}")
    await scene.tick()
    scene.write(line(6, "checkout-v2") | {"svc": "checkout"}, line(6, "checkout-v2") | {"svc": "shop"})
    assert await scene.counts() == (0.0, 1.0)
    await scene.source.close()


@pytest.mark.parametrize(
    "written",
    [NOON, NOON * 1e3, NOON * 1e6, NOON * 1e9, "2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00"],
)
def test_times_are_read_in_every_usual_form(written: object) -> None:
    assert seconds_of(written) == NOON


@pytest.mark.parametrize("written", [None, True, "noon", [], {}])
def test_what_is_no_time_is_none(written: object) -> None:
    assert seconds_of(written) is None
