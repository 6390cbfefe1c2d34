"""The scrape source against real HTTP servers, well and ill."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from domain.clock import SystemClock
from domain.errors import SourceRejected, SourceUnavailable
from domain.signal import Arm, Channel, Quality, Sample
from streams.pollers.base import Fetched, target_of
from streams.pollers.scrape import ScrapeSource
from streams.pollers.scrape_page import ScrapeSettings
from tests.streams.pollers.pages import Answer, PageServer, cut_off, drip, flood, hang, page, serving
from tests.streams.pollers.rollouts import spec

TARGET = target_of(spec(), Channel.METRICS)
NOON = 1_700_000_000.0
GENERIC = {"requests": "requests_total", "error_label": "code", "error_values": "5..", "latency": "seconds"}


def pod(version: str, good: int, bad: int = 0, *, born: float | None = None, fast: int = 0) -> str:
    """The page of a pod of one version."""
    lines = [f'requests_total{{version="{version}",code="200"}} {good}']
    if bad:
        lines.append(f'requests_total{{version="{version}",code="503"}} {bad}')
    if born is not None:
        lines.append(f"process_start_time_seconds {born}")
    for edge, count in (("0.25", fast), ("0.5", good), ("1", good), ("2.5", good), ("+Inf", good + bad)):
        lines.append(f'seconds_bucket{{version="{version}",le="{edge}"}} {count}')
    lines.append(f'seconds_count{{version="{version}"}} {good + bad}')
    return "# TYPE requests_total counter\n" + "\n".join(lines) + "\n"


def envoy(**classes: dict[str, int]) -> str:
    """An Envoy page: requests by cluster and class."""
    lines = [
        f'envoy_cluster_upstream_rq_xx{{envoy_response_code_class="{code[1:]}",envoy_cluster_name="{cluster}"}}'
        f" {count}"
        for cluster, of in classes.items()
        for code, count in of.items()
    ]
    return "\n".join(lines) + "\n"


@asynccontextmanager
async def scraping(*servers: PageServer | dict[str, Any], **options: Any) -> AsyncIterator[ScrapeSource]:
    urls = [each.url if isinstance(each, PageServer) else each for each in servers]
    settings = ScrapeSettings.read("mesh", {"kind": "scrape", "targets": urls, **(options or GENERIC)})
    source = ScrapeSource("mesh", settings, SystemClock())
    try:
        yield source
    finally:
        await source.close()


class Reader:
    """Asks a source tick by tick."""

    def __init__(self, source: ScrapeSource, interval_s: float = 2.0) -> None:
        self.source = source
        self.interval_s = interval_s
        self.end = NOON

    async def tick(self) -> Fetched:
        self.end += self.interval_s
        return await self.source.fetch([TARGET], self.end, self.interval_s)


def only(fetched: Fetched, signal: str, arm: Arm) -> Sample:
    [found] = [each for each in fetched.samples if (each.signal, each.arm) == (signal, arm)]
    return found


async def test_what_two_pods_counted_between_two_readings_is_the_sample() -> None:
    async with (
        serving(page(pod("v1", 100)), page(pod("v2", 10))) as (stable, canary),
        scraping(stable, canary) as source,
    ):
        reader = Reader(source)
        first = await reader.tick()
        assert {each.quality for each in first.samples} == {int(Quality.FIRST)}
        assert {(each.events, each.exposure) for each in first.samples} == {(0.0, 0.0)}
        stable.answer, canary.answer = page(pod("v1", 190, fast=60)), page(pod("v2", 17, 3))
        second = await reader.tick()
    requests = only(second, "error_rate", Arm.CANARY)
    assert (requests.events, requests.exposure, requests.quality) == (3.0, 10.0, 0)
    assert (requests.start, requests.end) == (NOON + 2, NOON + 4)
    latency = only(second, "latency_ms", Arm.STABLE)
    assert latency.exposure == 90.0
    # The limits are 400 and 800 ms: the edges on both sides of each, no others.
    assert (latency.edges, latency.counts) == ((250.0, 500.0, 1000.0), (60.0, 90.0, 90.0))
    assert second.problems == {}


async def test_all_edges_travel_when_asked_for() -> None:
    async with (
        serving(page(pod("v1", 1))) as [server],
        scraping(server, **GENERIC, histogram="full") as source,
    ):
        fetched = await Reader(source).tick()
    assert only(fetched, "latency_ms", Arm.STABLE).edges == (250.0, 500.0, 1000.0, 2500.0)


async def test_envoy_counts_classes_and_misses_no_failures_when_there_are_none() -> None:
    before = envoy(checkout_v1={"c2": 100, "c4": 5}, checkout_v2={"c2": 10})
    after = envoy(checkout_v1={"c2": 150, "c4": 6}, checkout_v2={"c2": 15, "c5": 2}, other_v2={"c5": 9})
    async with serving(page(before)) as [server], scraping(server, preset="envoy") as source:
        reader = Reader(source)
        await reader.tick()
        server.answer = page(after)
        fetched = await reader.tick()
        assert server.heads[0].startswith("GET /stats/prometheus?usedonly&filter=")
    stable, canary = (only(fetched, "error_rate", arm) for arm in Arm)
    assert (stable.events, stable.exposure) == (0.0, 51.0)
    assert (canary.events, canary.exposure) == (2.0, 7.0)


async def test_an_arm_whose_total_is_missing_gives_no_sample() -> None:
    async with (
        serving(page(envoy(checkout_v1={"c2": 1}))) as [server],
        scraping(server, preset="envoy") as source,
    ):
        fetched = await Reader(source).tick()
    assert [(each.signal, each.arm) for each in fetched.samples] == [("error_rate", Arm.STABLE)]
    assert fetched.problems == {}


async def test_a_cluster_that_envoy_knows_but_never_used_had_no_traffic() -> None:
    text = (
        envoy(checkout_v1={"c2": 1}) + 'envoy_cluster_membership_total{envoy_cluster_name="checkout_v2"} 1\n'
    )
    async with serving(page(text)) as [server], scraping(server, preset="envoy") as source:
        reader = Reader(source)
        await reader.tick()
        fetched = await reader.tick()
        assert only(fetched, "error_rate", Arm.CANARY).exposure == 0.0
        assert only(fetched, "latency_ms", Arm.CANARY).exposure == 0.0
        server.answer = page(text + envoy(checkout_v2={"c2": 7, "c5": 1}))
        fetched = await reader.tick()
    assert only(fetched, "error_rate", Arm.CANARY).exposure == 8.0
    assert only(fetched, "error_rate", Arm.CANARY).quality == 0


async def test_latencies_without_buckets_are_not_taken_for_slow() -> None:
    text = 'requests_total{{version="v2",code="200"}} {0}\nseconds_count{{version="v2"}} {0}\n'
    async with serving(page(text.format(10))) as [server], scraping(server) as source:
        reader = Reader(source)
        await reader.tick()
        server.answer = page(text.format(50))
        latency = only(await reader.tick(), "latency_ms", Arm.CANARY)
    assert (latency.exposure, latency.edges, latency.counts) == (40.0, (), ())


async def test_a_rollout_of_which_no_page_knows_is_told_what_was_looked_for() -> None:
    async with (
        serving(page(envoy(shop_v1={"c2": 1}, shop_v2={"c2": 1}))) as [server],
        scraping(server, preset="envoy") as source,
    ):
        fetched = await Reader(source).tick()
    assert fetched.problems == {
        "r-1": "no series has envoy_cluster_name='checkout_v1' or 'checkout_v2'; seen were shop_v1, shop_v2"
    }


@pytest.mark.parametrize(
    "answer, error, words",
    [
        (hang, SourceUnavailable, r"did not answer within 0.1 s"),
        (drip, SourceUnavailable, r"did not answer within 0.1 s"),
        (page("<html>", media="text/html"), SourceRejected, "answered text/html, not metrics"),
        (page("<!doctype html>", media="text/plain"), SourceRejected, "answered text/html, not metrics"),
        (page("{}", media="application/json"), SourceRejected, "answered application/json, not metrics"),
        (page("requests_total ten\n"), SourceRejected, "line 1 reads 'requests_total ten'"),
        (page("requests_total 10"), SourceRejected, "cut off"),
        (page("", status="500 Oh"), SourceUnavailable, "answered status 500"),
        (page("", status="429 Slow down"), SourceUnavailable, "answered status 429"),
        (page("", status="404 No"), SourceRejected, "answered status 404"),
        (page("", status="302 Found"), SourceRejected, "answered status 302"),
        (cut_off, SourceUnavailable, "broke off: RemoteProtocolError"),
    ],
)
async def test_an_endpoint_that_answers_badly_is_an_error_in_words(
    answer: Answer, error: type[Exception], words: str
) -> None:
    async with serving(answer) as [server], scraping(server) as source:
        with pytest.raises(error, match=words) as caught:
            await Reader(source, interval_s=0.2).tick()
        assert str(caught.value).startswith(f"{server.url}/metrics ")


async def test_a_huge_answer_is_not_read_to_its_end() -> None:
    async with serving(flood) as [server], scraping(server, **GENERIC, max_bytes=1_000_000) as source:
        with pytest.raises(SourceRejected, match="answered more than 1000000 bytes"):
            await Reader(source, interval_s=60.0).tick()


async def test_an_endpoint_that_is_not_there_refuses_the_connection() -> None:
    async with serving(page("")) as [server], scraping(server) as source:
        await server.stop()
        with pytest.raises(SourceUnavailable, match="refused the connection"):
            await Reader(source).tick()


async def test_one_endpoint_that_vanishes_makes_its_arm_partial_and_comes_back_whole() -> None:
    pages = [page(pod("v1", 100)), page(pod("v2", 100)), page(pod("v2", 1000))]
    async with serving(*pages) as (stable, one, other), scraping(stable, one, other) as source:
        reader = Reader(source)
        await reader.tick()
        one.answer = page(pod("v2", 110))
        await other.stop()
        partial = await reader.tick()
        await other.start()
        one.answer, other.answer = page(pod("v2", 120)), page(pod("v2", 1070))
        back = await reader.tick()
    alone = only(partial, "error_rate", Arm.CANARY)
    assert (alone.exposure, alone.quality) == (10.0, int(Quality.PARTIAL))
    assert only(partial, "error_rate", Arm.STABLE).quality == 0, "it has nothing to do with stable"
    both = only(back, "error_rate", Arm.CANARY)
    assert (both.exposure, both.quality) == (80.0, int(Quality.SPANS))
    assert (both.start, both.end) == (NOON + 2, NOON + 6)


async def test_one_of_three_endpoints_restarts_between_two_readings() -> None:
    def pages(born: float, *counts: int) -> list[Answer]:
        return [page(pod("v2", count, born=NOON)) for count in counts[:2]] + [
            page(pod("v2", counts[2], born=born))
        ]

    async with serving(*pages(NOON, 100, 200, 5)) as servers, scraping(*servers) as source:
        reader = Reader(source)
        await reader.tick()
        # Its counter has overtaken the old value; only its start time tells.
        for server, answer in zip(servers, pages(NOON + 3, 110, 210, 8), strict=True):
            server.answer = answer
        fetched = await reader.tick()
    sample = only(fetched, "error_rate", Arm.CANARY)
    assert (sample.exposure, sample.quality) == (28.0, int(Quality.RESET))


async def test_counters_that_fall_count_from_the_restart() -> None:
    async with serving(page(pod("v2", 500, 40))) as [server], scraping(server) as source:
        reader = Reader(source)
        await reader.tick()
        server.answer = page(pod("v2", 12, 1))
        sample = only(await reader.tick(), "error_rate", Arm.CANARY)
    assert (sample.events, sample.exposure, sample.quality) == (1.0, 13.0, int(Quality.RESET))


async def test_a_reading_that_was_missed_is_made_up_by_the_next() -> None:
    async with serving(page(pod("v2", 10))) as [server], scraping(server) as source:
        reader = Reader(source)
        await reader.tick()
        server.answer = page("", status="503 Busy")
        with pytest.raises(SourceUnavailable):
            await reader.tick()
        server.answer = page(pod("v2", 35))
        sample = only(await reader.tick(), "error_rate", Arm.CANARY)
    assert (sample.exposure, sample.quality) == (25.0, int(Quality.SPANS))
    assert (sample.start, sample.end) == (NOON + 2, NOON + 6)


async def test_labels_of_an_endpoint_say_whose_page_it_is() -> None:
    async with serving(page("requests_total 5\n"), page("requests_total 7\n")) as (stable, canary):
        labelled = [
            {"url": stable.url, "labels": {"version": "v1"}},
            {"url": canary.url, "labels": {"version": "v2"}},
        ]
        async with scraping(*labelled, requests="requests_total", errors="failures_total") as source:
            await canary.stop()
            fetched = await Reader(source).tick()
    assert [each.arm for each in fetched.samples] == [Arm.STABLE]
    assert fetched.samples[0].quality == int(Quality.FIRST), "the canary's silence is not stable's"


async def test_intervals_do_not_take_each_others_increments() -> None:
    async with serving(page(pod("v2", 10))) as [server], scraping(server) as source:
        quick, slow = Reader(source, 1.0), Reader(source, 4.0)
        await quick.tick()
        await slow.tick()
        server.answer = page(pod("v2", 20))
        assert only(await quick.tick(), "error_rate", Arm.CANARY).exposure == 10.0
        assert only(await slow.tick(), "error_rate", Arm.CANARY).exposure == 10.0


async def test_the_token_is_sent_and_never_shown(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    async with (
        serving(page("", status="401 Who")) as [server],
        scraping(server, **GENERIC, token_file=str(token)) as source,
    ):
        with pytest.raises(SourceRejected) as caught:
            await Reader(source).tick()
        assert "Bearer s3cret" in server.heads[0]
        assert "s3cret" not in str(caught.value)
