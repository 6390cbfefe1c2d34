"""The poller in real time, with a tick of a quarter of a second."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from domain.clock import SystemClock
from domain.errors import SourceUnavailable
from domain.records import RolloutRecord, SampleFrame
from domain.rollout import Phase
from domain.signal import Arm, Channel, Freshness, Quality, Sample
from streams.bus import BrokerUnavailable
from streams.codec import unpack_samples
from streams.pollers.base import Fetched, Source, Target, ratio_sample
from streams.pollers.loop import Poller
from streams.pollers.scrape import ScrapeSource
from streams.pollers.scrape_page import ScrapeSettings
from tests.streams.pollers.pages import page, serving
from tests.streams.pollers.rollouts import GATES, gate, record, spec

TICK = 0.25


def by_last_digit(rollout_id: str, partitions: int) -> int:
    return int(rollout_id[-1]) % partitions


class Counting:
    """A source that knows one number: how often it was asked."""

    channel = Channel.METRICS
    freshness = Freshness.REALTIME

    def __init__(self, name: str = "mesh") -> None:
        self.name = name
        self.asked: list[tuple[tuple[str, ...], float]] = []
        self.is_closed = False

    async def fetch(self, targets: Sequence[Target], end: float, interval_s: float) -> Fetched:
        self.asked.append((tuple(each.rollout_id for each in targets), end))
        return Fetched(end=end, samples=[self.sample(each, end, interval_s) for each in targets])

    def sample(self, target: Target, end: float, interval_s: float) -> Sample:
        return ratio_sample(
            target, "error_rate", Arm.CANARY, start=end - interval_s, end=end, events=0.0, exposure=1.0
        )

    async def close(self) -> None:
        self.is_closed = True


class Log:
    """What was published, and somebody who tells of rollouts."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, SampleFrame]] = []
        self.is_away = False
        self._told: asyncio.Queue[RolloutRecord] = asyncio.Queue()
        self._news = asyncio.Condition()

    async def publish(self, channel: Channel, partition: int, frame: SampleFrame) -> None:
        if self.is_away:
            raise BrokerUnavailable("no broker")
        assert channel is frame.channel
        self.frames.append((partition, frame))
        async with self._news:
            self._news.notify_all()

    def tell(self, *records: RolloutRecord) -> None:
        for each in records:
            self._told.put_nowait(each)

    async def rollouts(self) -> AsyncIterator[RolloutRecord]:
        while True:
            yield await self._told.get()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(holds)

    def of(self, source: str) -> list[SampleFrame]:
        return [frame for _, frame in self.frames if frame.report.source == source]


@asynccontextmanager
async def polling(*sources: Source) -> AsyncIterator[Log]:
    log = Log()
    poller = Poller(
        {each.name: each for each in sources},
        partitions=4,
        partition_of=by_last_digit,
        publish=log.publish,
        clock=SystemClock(),
    )
    task = asyncio.create_task(poller.run(log.rollouts()))
    try:
        yield log
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_each_tick_is_published_once_at_a_multiple_of_the_interval() -> None:
    source = Counting()
    async with polling(source) as log:
        log.tell(record(spec(interval_s=TICK)))
        await log.until(lambda: len(log.frames) >= 4)
    ends = [frame.report.end for _, frame in log.frames]
    assert ends == sorted(set(ends))
    assert all(abs(end / TICK - round(end / TICK)) < 1e-6 for end in ends)
    assert [frame.frame_seq for _, frame in log.frames] == list(range(1, len(ends) + 1))
    assert source.asked[0][1] < ends[0], "the first reading comes before the first tick ends"


async def test_one_fetch_serves_all_rollouts_and_each_partition_gets_one_frame() -> None:
    source = Counting()
    async with polling(source) as log:
        log.tell(*(record(spec(f"r-{number}", interval_s=TICK)) for number in range(6)))
        await log.until(lambda: any(len(of) == 6 for of, _ in source.asked) and len(log.frames) >= 8)
    whole = next(end for of, end in source.asked[1:] if len(of) == 6)
    frames = {partition: frame for partition, frame in log.frames if frame.report.end == whole}
    assert {partition: frame.report.rollouts for partition, frame in frames.items()} == {
        0: ("r-0", "r-4"),
        1: ("r-1", "r-5"),
        2: ("r-2",),
        3: ("r-3",),
    }
    assert [each.rollout_id for each in unpack_samples(frames[1])] == ["r-1", "r-5"]
    assert len([end for _, end in source.asked if end == whole]) == 1


async def test_a_rollout_in_a_final_phase_is_polled_no_more() -> None:
    source = Counting()
    async with polling(source) as log:
        first, second = spec("r-1", interval_s=TICK), spec("r-2", interval_s=TICK)
        log.tell(record(first), record(second))
        await log.until(lambda: {"r-1", "r-2"} <= {each for _, f in log.frames for each in f.report.rollouts})
        log.tell(record(first, Phase.PROMOTED))
        await log.until(lambda: source.asked[-1][0] == ("r-2",))
        asked = len(source.asked)
        log.tell(record(second, Phase.ROLLED_BACK), record(spec("r-3", metrics="mesh", interval_s=TICK)))
        await log.until(lambda: source.asked[-1][0] == ("r-3",))
        assert all("r-1" not in of for of, _ in source.asked[asked:])


async def test_a_source_that_hangs_delays_no_other() -> None:
    class Hanging(Counting):
        async def fetch(self, targets: Sequence[Target], end: float, interval_s: float) -> Fetched:
            await asyncio.Event().wait()
            raise AssertionError

    async with polling(Hanging("stuck"), Counting("mesh")) as log:
        log.tell(record(spec("r-1", interval_s=TICK)))
        log.tell(record(spec("r-2", metrics="stuck", interval_s=TICK)))
        await log.until(lambda: len(log.of("mesh")) >= 5)
        assert log.of("stuck") == []


async def test_a_fetch_that_never_ends_is_given_up_and_reported() -> None:
    class Hanging(Counting):
        async def fetch(self, targets: Sequence[Target], end: float, interval_s: float) -> Fetched:
            await asyncio.Event().wait()
            raise AssertionError

    async with polling(Hanging()) as log:
        log.tell(record(spec("r-1", interval_s=TICK)))
        await log.until(lambda: len(log.frames) >= 1)
    assert log.frames[0][1].report.problem == "did not answer within 0.75 s"


async def test_a_fetch_that_overruns_skips_ticks_and_queues_none() -> None:
    class Slow(Counting):
        async def fetch(self, targets: Sequence[Target], end: float, interval_s: float) -> Fetched:
            await asyncio.sleep(interval_s * 1.5)
            return await super().fetch(targets, end, interval_s)

    source = Slow()
    async with polling(source) as log:
        log.tell(record(spec(interval_s=TICK)))
        await log.until(lambda: len(log.frames) >= 4)
    ends = [frame.report.end for _, frame in log.frames]
    gaps = [later - earlier for earlier, later in itertools.pairwise(ends)]
    assert min(gaps) > 1.9 * TICK


async def test_a_source_that_fails_says_why_for_every_rollout() -> None:
    class Failing(Counting):
        async def fetch(self, targets: Sequence[Target], end: float, interval_s: float) -> Fetched:
            raise SourceUnavailable("answered status 503")

    async with polling(Failing()) as log:
        log.tell(record(spec("r-1", interval_s=TICK)), record(spec("r-5", interval_s=TICK)))
        await log.until(lambda: any(len(frame.report.rollouts) == 2 for _, frame in log.frames))
    frame = log.frames[-1][1]
    assert frame.report.problem == "answered status 503"
    assert unpack_samples(frame) == []


async def test_a_defect_in_a_source_is_reported_and_polling_goes_on() -> None:
    class Defective(Counting):
        async def fetch(self, targets: Sequence[Target], end: float, interval_s: float) -> Fetched:
            fetched = await super().fetch(targets, end, interval_s)
            if len(self.asked) < 4:
                raise KeyError("nothing")
            return fetched

    async with polling(Defective()) as log:
        log.tell(record(spec(interval_s=TICK)))
        await log.until(lambda: len(log.frames) >= 4)
    problems = [frame.report.problem for _, frame in log.frames]
    assert problems[:2] == ["the poller failed: KeyError: 'nothing'"] * 2
    assert problems[2:4] == ["", ""]


async def test_impossible_numbers_cost_only_their_own_rollout_the_tick() -> None:
    class Backwards(Counting):
        def sample(self, target: Target, end: float, interval_s: float) -> Sample:
            start = end + interval_s if target.rollout_id == "r-5" else end - interval_s
            return ratio_sample(
                target, "error_rate", Arm.CANARY, start=start, end=end, events=0.0, exposure=1.0
            )

    async with polling(Backwards()) as log:
        log.tell(record(spec("r-1", interval_s=TICK)), record(spec("r-5", interval_s=TICK)))
        await log.until(lambda: any(frame.report.rollouts == ("r-5",) for _, frame in log.frames))
    bad = next(frame for _, frame in log.frames if frame.report.rollouts == ("r-5",))
    good = [frame for _, frame in log.frames if frame.report.end == bad.report.end and frame is not bad]
    assert "gave impossible numbers: row 0: start must lie before end" in bad.report.problem
    assert [each.rollout_id for frame in good for each in unpack_samples(frame)] == ["r-1"]


async def test_frames_wait_in_order_while_the_log_is_away() -> None:
    source = Counting()
    async with polling(source) as log:
        log.is_away = True
        log.tell(record(spec(interval_s=TICK)))
        async with asyncio.timeout(20):
            while len(source.asked) < 4:
                await asyncio.sleep(0.01)
        log.is_away = False
        await log.until(lambda: len(log.frames) >= 3)
    assert [frame.frame_seq for _, frame in log.frames[:3]] == [1, 2, 3]


async def test_a_policy_with_another_interval_moves_the_rollout() -> None:
    async with polling(Counting()) as log:
        log.tell(record(spec(interval_s=TICK)))
        await log.until(lambda: len(log.frames) >= 1)
        log.tell(record(spec(interval_s=2 * TICK), seq=2))
        await log.until(lambda: log.frames[-1][1].interval_s == 2 * TICK)
        seen = len(log.frames)
        await log.until(lambda: len(log.frames) >= seen + 2)
    assert {frame.interval_s for _, frame in log.frames[seen:]} == {2 * TICK}


async def test_stopping_closes_the_sources_and_leaves_no_task() -> None:
    source = Counting()
    before = asyncio.all_tasks()
    async with polling(source) as log:
        log.tell(record(spec(interval_s=TICK)))
        await log.until(lambda: len(log.frames) >= 1)
    assert source.is_closed
    assert asyncio.all_tasks() == before


async def test_a_rollout_polls_only_the_sources_it_names_on_their_channel() -> None:
    metrics, logs = Counting("mesh"), Counting("files")
    logs.channel = Channel.LOGS
    both = spec("r-1", logs="files", gates=(*GATES, gate("log_error_ratio")), interval_s=TICK)
    async with polling(metrics, logs) as log:
        log.tell(record(both), record(spec("r-2", interval_s=TICK)))
        await log.until(lambda: bool(log.of("files")) and any(len(of) == 2 for of, _ in metrics.asked))
    assert {of for of, _ in logs.asked} == {("r-1",)}


async def test_the_first_tick_of_a_scraped_rollout_is_whole() -> None:
    text = 'total{version="v1"} 10\ntotal{version="v2"} 10\n'
    async with serving(page(text)) as [server]:
        settings = ScrapeSettings.read(
            "mesh", {"kind": "scrape", "targets": [server.url], "requests": "total", "errors": "failures"}
        )
        async with polling(ScrapeSource("mesh", settings, SystemClock())) as log:
            log.tell(record(spec(interval_s=1.0)))
            await log.until(lambda: len(log.frames) >= 1)
    samples = unpack_samples(log.frames[0][1])
    assert {each.arm for each in samples} == set(Arm)
    assert {each.quality & Quality.FIRST for each in samples} == {0}
