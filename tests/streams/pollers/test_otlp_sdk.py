"""The real OpenTelemetry SDK sends; what comes out of the poller is counted. Every request, once."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domain.clock import SystemClock
from domain.records import SampleFrame
from domain.rollout import RolloutSpec, SourceRef
from domain.signal import Arm, Channel, Quality, Sample
from sentra.embedded.ports import free_ports
from streams.codec import unpack_samples
from streams.pollers.loop import Poller
from streams.pollers.registry import open_sources, read_sources
from tests.streams.pollers.rollouts import gate, record, spec

SENDER = Path(__file__).with_name("otlp_sender.py")
TICK_S = 0.5
GATES = (
    gate("error_rate"),
    gate("latency_ms", 250.0, 500.0, quantile=0.95),
    gate("log_error_ratio"),
    gate("trace_error_ratio"),
)
RESOURCE = {"service.name": "checkout", "service.version": "v2", "deployment.environment.name": "prod"}


def _spec() -> RolloutSpec:
    refs = tuple(SourceRef(name=f"otlp-{each.value}", channel=each) for each in Channel)
    return msgspec.structs.replace(spec(gates=GATES, interval_s=TICK_S), sources=refs)


@dataclass
class Seen:
    """What a poller published."""

    frames: list[SampleFrame] = field(default_factory=list)

    async def publish(self, channel: Channel, partition: int, frame: SampleFrame) -> None:
        self.frames.append(frame)

    def samples(self, signal: str, arm: Arm = Arm.CANARY) -> list[Sample]:
        rows = [each for frame in self.frames for each in unpack_samples(frame)]
        return [each for each in rows if (each.signal, each.arm) == (signal, arm)]

    def sums(self, signal: str) -> tuple[float, float]:
        rows = self.samples(signal)
        return sum(each.events for each in rows), sum(each.exposure for each in rows)


@asynccontextmanager
async def polling(port: int, seen: Seen, **options: Any) -> AsyncIterator[None]:
    """The poller as the worker runs it, with three sources on one receiver, from its first reading on."""
    sources = {
        f"otlp-{each.value}": {
            "kind": "otlp",
            "carries": each.value,
            "listen": f"127.0.0.1:{port}",
            "histogram": "full",
            **options,
        }
        for each in Channel
    }
    clock = SystemClock()
    poller = Poller(
        open_sources(read_sources(sources), clock),
        partitions=1,
        partition_of=lambda rollout, partitions: 0,
        publish=seen.publish,
        clock=clock,
    )

    async def rollouts() -> AsyncIterator[Any]:
        yield record(_spec())
        await asyncio.Event().wait()

    task = asyncio.create_task(poller.run(rollouts()))
    while len({each.report.source for each in seen.frames}) < 3:
        assert not task.done(), task.result()
        await asyncio.sleep(0.02)
    try:
        yield
        await asyncio.sleep(2.5 * TICK_S)  # what arrived now is in the tick that ends next
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def send(port: int, **given: Any) -> None:
    """Run a service until it has ended."""
    given = {"endpoint": f"http://127.0.0.1:{port}", "resource": RESOURCE, **given}
    service = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SENDER),
        json.dumps(given),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await service.communicate()
    assert (service.returncode, said.decode()) == (0, "")


INSTANCES = {
    "one name": ({"service.instance.id": "pod-a"}, {"service.instance.id": "pod-a"}),
    "a name each": ({"service.instance.id": "pod-a"}, {"service.instance.id": "pod-b"}),
}


@pytest.mark.parametrize("temporality", ["DELTA", "CUMULATIVE"])
@pytest.mark.parametrize("instances", INSTANCES.values(), ids=INSTANCES)
async def test_a_thousand_requests_of_which_37_fail_are_counted_over_a_restart(
    temporality: str, instances: Sequence[dict[str, str]]
) -> None:
    [port] = free_ports(1)
    seen = Seen()
    async with polling(port, seen):
        shares = ((600, 20), (400, 17))
        for (requests, failures), instance in zip(shares, instances, strict=True):
            await send(
                port,
                temporality=temporality,
                requests=requests,
                failures=failures,
                resource={**RESOURCE, **instance},
                compression="gzip" if requests == 400 else "none",
            )
    for signal in ("error_rate", "log_error_ratio", "trace_error_ratio"):
        assert seen.sums(signal) == (37.0, 1000.0), signal
    latencies = seen.samples("latency_ms")
    at_250 = sum(each.counts[each.edges.index(250.0)] for each in latencies if each.exposure)
    assert (at_250, sum(each.exposure for each in latencies)) == (900.0, 1000.0)
    reset = any(each.quality & Quality.RESET for each in seen.samples("error_rate"))
    assert reset == (temporality == "CUMULATIVE" and instances[0] == instances[1])


@pytest.mark.parametrize("temporality", ["DELTA", "CUMULATIVE"])
async def test_exponential_histograms_are_counted_at_their_own_edges(temporality: str) -> None:
    [port] = free_ports(1)
    seen = Seen()
    async with polling(port, seen, histogram="needed"):
        await send(port, temporality=temporality, requests=1000, failures=37, exponential=True)
    assert seen.sums("error_rate") == (37.0, 1000.0)
    latencies = [each for each in seen.samples("latency_ms") if each.exposure]
    # A quarter and half of a second are powers of two, so the limits are edges themselves.
    assert {each.edges for each in latencies} == {(250.0, 500.0)}
    assert [sum(each.counts[edge] for each in latencies) for edge in (0, 1)] == [900.0, 900.0]


async def test_deltas_that_a_restarting_poller_did_not_take_are_sent_again_and_counted() -> None:
    [port] = free_ports(1)
    seen = Seen()
    sending = asyncio.create_task(
        send(port, temporality="DELTA", requests=1000, failures=37, rounds=4, pause_s=1.0)
    )
    async with polling(port, seen):
        while not seen.sums("error_rate")[1]:
            await asyncio.sleep(0.05)
    again = Seen()
    async with polling(port, again):
        await sending
    for signal in ("error_rate", "log_error_ratio", "trace_error_ratio"):
        both = zip(seen.sums(signal), again.sums(signal), strict=True)
        assert tuple(map(sum, both)) == (37.0, 1000.0), signal
    assert again.sums("error_rate")[1] > 0
