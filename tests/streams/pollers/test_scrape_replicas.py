"""Pods scraped as replicas add up to the arm that they are when they are not told apart."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest
from msgspec.structs import replace

from domain.errors import ConfigError
from domain.records import Report, SignalInput
from domain.rollout import SourceRef, context_of
from domain.signal import Arm, Channel, Quality, Sample
from scorers.assemble import Assembler
from streams.pollers.base import Fetched
from streams.pollers.scrape_page import ScrapeSettings
from tests.streams.pollers.pages import page, serving
from tests.streams.pollers.rollouts import spec
from tests.streams.pollers.test_scrape import GENERIC, NOON, Reader, pod, scraping

ODD_EDGES = ("0.1", "0.25", "0.4", "1")
"""Other bucket edges than those of :func:`pod`, with some in common."""


def odd_pod(version: str, good: int, bad: int = 0, **_: object) -> str:
    """The page of a pod with other bucket edges."""
    lines = pod(version, good, bad).splitlines()
    lines = [line for line in lines if "bucket" not in line]
    lines += [f'seconds_bucket{{version="{version}",le="{edge}"}} {good}' for edge in ODD_EDGES]
    return "\n".join(lines) + "\n"


def inputs(fetched: Sequence[Fetched]) -> list[tuple[SignalInput, ...]]:
    """What the judge sees, tick by tick."""
    joined = Assembler()
    wanted = spec()
    wanted = replace(wanted, sources=(SourceRef(name="mesh", channel=Channel.METRICS),))
    joined.track("r-1", context_of(wanted), NOON)
    found = []
    for each in fetched:
        report = Report(source="mesh", end=each.end, rollouts=("r-1",))
        ((_, closed),) = joined.add(report, each.samples, each.end)
        found.append(closed.signals)
    assert joined.dropped == {}
    return found


def unsplit(signals: tuple[SignalInput, ...]) -> tuple[SignalInput, ...]:
    return tuple(replace(each, half_events=-1.0, half_exposure=-1.0, half_counts=()) for each in signals)


@pytest.mark.parametrize("seed", range(4))
async def test_replicas_add_up_to_the_arm(seed: int) -> None:
    # Four pods of v1, three of v2; in each tick some count nothing, are silent, or have begun anew at 0.
    drawn = random.Random(seed)
    makers = [
        (pod, "v1"),
        (pod, "v1"),
        (odd_pod, "v1"),
        (pod, "v1"),
        (pod, "v2"),
        (odd_pod, "v2"),
        (pod, "v2"),
    ]
    counts = [[drawn.randrange(1000), drawn.randrange(30)] for _ in makers]
    async with (
        serving(*(page("") for _ in makers)) as servers,
        scraping(*servers) as plain,
        scraping(*servers, **GENERIC, replicas=True) as apart,
    ):
        readers = [Reader(plain), Reader(apart)]
        seen: list[list[Fetched]] = [[], []]
        for _ in range(8):
            for server, (make, version), count in zip(servers, makers, counts, strict=True):
                fate = drawn.random()
                if fate < 0.1:
                    count[:] = [drawn.randrange(20), 0]
                elif fate < 0.8:
                    count[0] += drawn.randrange(200)
                    count[1] += drawn.randrange(3)
                text = make(version, *count, fast=count[0] // 2)
                is_silent = drawn.random() < 0.15
                server.answer = page("", status="503 Busy") if is_silent else page(text)
            for reader, of in zip(readers, seen, strict=True):
                of.append(await reader.tick())
    whole, split = inputs(seen[0]), inputs(seen[1])
    assert [unsplit(each) for each in split] == whole
    assert any(each.half_exposure > 0 for tick in split for each in tick), "it was never split"
    flags = {flag for tick in whole for each in tick for flag in Quality if each.quality & flag}
    assert flags == {Quality.FIRST, Quality.RESET, Quality.PARTIAL, Quality.SPANS}, "the test saw all of it"


def by_replica(samples: Sequence[Sample], signal: str, arm: Arm) -> Mapping[str, Sample]:
    return {each.replica: each for each in samples if (each.signal, each.arm) == (signal, arm)}


async def test_each_pod_has_samples_of_its_own_under_its_address() -> None:
    pages = [page(pod("v1", 100)), page(pod("v1", 200)), page(pod("v2", 10))]
    async with serving(*pages) as servers, scraping(*servers, **GENERIC, replicas=True) as source:
        reader = Reader(source)
        await reader.tick()
        servers[0].answer, servers[1].answer = page(pod("v1", 110)), page(pod("v1", 205, 1))
        fetched = await reader.tick()
    names = [f"127.0.0.1:{server.port}/metrics" for server in servers]
    stable = by_replica(fetched.samples, "error_rate", Arm.STABLE)
    assert {name: (each.events, each.exposure) for name, each in stable.items()} == {
        names[0]: (0.0, 10.0),
        names[1]: (1.0, 6.0),
    }
    assert list(by_replica(fetched.samples, "error_rate", Arm.CANARY)) == [names[2]]


async def test_without_replicas_nothing_is_told_apart() -> None:
    async with (
        serving(page(pod("v1", 1)), page(pod("v1", 2)), page(pod("v2", 3))) as servers,
        scraping(*servers) as source,
    ):
        fetched = await Reader(source).tick()
    assert {each.replica for each in fetched.samples} == {""}


async def test_the_silence_of_one_replica_shows_on_the_others_of_its_arm() -> None:
    pages = [page(pod("v1", 1)), page(pod("v1", 2)), page(pod("v1", 3)), page(pod("v2", 4))]
    async with serving(*pages) as servers, scraping(*servers, **GENERIC, replicas=True) as source:
        reader = Reader(source)
        await reader.tick()
        await servers[2].stop()
        fetched = await reader.tick()
    stable = by_replica(fetched.samples, "error_rate", Arm.STABLE)
    assert [each.quality for each in stable.values()] == [int(Quality.PARTIAL)] * 2
    assert [each.quality for each in by_replica(fetched.samples, "error_rate", Arm.CANARY).values()] == [0]


def test_the_query_of_a_target_is_not_part_of_its_name() -> None:
    targets = ["http://pod:8080/metrics?token=s3cret", "http://pod:8080/metrics?token=other"]
    settings = {"kind": "scrape", "targets": targets, **GENERIC}
    assert len(ScrapeSettings.read("mesh", settings).targets) == 2
    with pytest.raises(ConfigError, match="told apart by host, port and path") as caught:
        ScrapeSettings.read("mesh", settings | {"replicas": True})
    assert "s3cret" not in str(caught.value)
