"""Pods whose metrics pages fail in every way: the rollout holds or goes on, and never goes down by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from domain.policy import Telemetry
from domain.records import TickInput
from domain.rollout import Phase, SourceRef
from domain.signal import Channel
from domain.verdict import Verdict
from tests.integration.feeding import Feeder, synthetic_policy
from tests.integration.loop import CLOCK, Loop, processes, until
from tests.streams.pollers.pages import PageServer, hang, page

pytestmark = [pytest.mark.server, pytest.mark.slow]

ROLLOUT = "roll-pods"
PER_POD = 60.0
"""Requests a second."""


class Pod:
    """One process of a version, with a real page of counters that begin at 0 when it is born."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.server = PageServer(self._answer)
        self.bad_share = 0.0
        self._born = CLOCK.now()
        self._bad = 0.0

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        total = round((CLOCK.now() - self._born) * PER_POD)
        bad = round(total * self.bad_share)
        lines = [
            f'http_requests_total{{version="{self.version}",code="{code}"}} {count}'
            for code, count in (("200", total - bad), ("500", bad))
        ]
        await page("\n".join(lines) + "\n")(writer)

    def hangs(self) -> None:
        self.server.answer = hang

    def answers_html(self) -> None:
        self.server.answer = page("<html>sign in</html>", media="text/html")

    def works(self) -> None:
        self.server.answer = self._answer

    def begins_anew(self) -> None:
        """Its counters are 0 again."""
        self._born = CLOCK.now()


@asynccontextmanager
async def three_pods_each() -> AsyncIterator[tuple[list[Pod], list[Pod]]]:
    stable, canary = [Pod("v1") for _ in range(3)], [Pod("v2") for _ in range(3)]
    for pod in (*stable, *canary):
        await pod.server.start()
    try:
        yield stable, canary
    finally:
        for pod in (*stable, *canary):
            await pod.server.stop()


def verdicts_after(made: Loop, moment: float) -> list[Verdict]:
    return [each.verdict for each in made.log.evaluations_after(moment) if each.verdict is not None]


async def until_ticks(made: Loop, ticks: int, *, verdict: Verdict | None = None) -> None:
    """Until so many ticks of now on were judged (as ``verdict``)."""
    began = CLOCK.now()

    def are_there() -> bool:
        found = verdicts_after(made, began)
        return len(found) >= ticks and (verdict is None or found.count(verdict) >= ticks)

    await until(are_there, f"{ticks} ticks are {verdict.value if verdict else 'judged'}", 30.0)


async def test_failing_metrics_pages_never_roll_a_healthy_rollout_back(tmp_path: Path) -> None:
    async with three_pods_each() as (stable, canary):
        sources = {
            "pods": {
                "kind": "scrape",
                "targets": [pod.server.url for pod in (*stable, *canary)],
                "requests": "http_requests_total",
                "error_label": "code",
                "error_values": "5..",
            }
        }
        async with (
            processes(tmp_path, "judge,record,relay,poll", with_traffic=False, sources=sources) as (made, _),
            Feeder(made),
        ):
            policy = replace(synthetic_policy("shop-pods"), telemetry=Telemetry(metrics="pods"))
            made.start_policy(policy, ROLLOUT, (SourceRef(name="pods", channel=Channel.METRICS),))
            await until_ticks(made, 2, verdict=Verdict.PASS)
            one = canary[0]

            one.hangs()
            await until_ticks(made, 3)
            one.works()
            await until_ticks(made, 2, verdict=Verdict.PASS)

            one.answers_html()
            await until_ticks(made, 3)
            one.works()
            await until_ticks(made, 2, verdict=Verdict.PASS)

            for pod in canary:
                pod.begins_anew()
            await until_ticks(made, 2, verdict=Verdict.PASS)

            await one.server.stop()  # a restart that takes longer than a tick
            await until_ticks(made, 2)
            one.begins_anew()
            await one.server.start()
            await until_ticks(made, 2, verdict=Verdict.PASS)

            await one.server.stop()  # and this one never comes back
            await until_ticks(made, 2, verdict=Verdict.PASS)

            for pod in canary:
                pod.hangs()
            await until_ticks(made, 3, verdict=Verdict.NO_DATA)
            for pod in canary:
                pod.works()
            await until_ticks(made, 2, verdict=Verdict.PASS)

            seen = verdicts_after(made, 0.0)
            assert not {Verdict.FAIL, Verdict.SEVERE} & set(seen)
            assert made.phase(ROLLOUT) is Phase.ANALYSING
            ticks = [e.input for e in made.log.evaluations(ROLLOUT) if isinstance(e.input, TickInput)]
            exposures = [s.exposure for tick in ticks for s in tick.signals]
            assert max(exposures) <= 3 * PER_POD * 6, (
                "a counter that begins anew is not counted from the beginning"
            )

            for pod in canary:
                pod.bad_share = 0.5
            await made.until_phase(ROLLOUT, Phase.ROLLED_BACK)  # the same pages can say so when it is true
            await made.assert_replays(ROLLOUT)
            made.assert_seq_without_holes(ROLLOUT)
