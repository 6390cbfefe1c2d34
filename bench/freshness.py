"""How old the newest counted request is when its tick is published: service, OTLP, poller, no store between.

``python -m bench.freshness [--seconds 60] [--services 20] [--export-ms 1000] [--json]``. A process with the
real OpenTelemetry SDK answers requests all the time and exports every second; the poller runs as the worker
runs it, at a tick of one second. For every published sample that counted something, its age is what the
sample says of its newest datum (``age_s``) and what passed from its tick's end to its publication.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from statistics import quantiles

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from domain.clock import SystemClock
from domain.policy import Gate, Policy, Telemetry, Traffic
from domain.records import RolloutRecord, SampleFrame
from domain.rollout import Phase, RolloutSpec, SourceRef
from domain.signal import Channel
from sentra.embedded.ports import free_ports
from streams.codec import unpack_samples
from streams.pollers.loop import Poller
from streams.pollers.registry import open_sources, read_sources

TICK_S = 1.0
SETTLE_S = 4.0
"""Published ticks of the beginning are left out: services start, first exports are due."""


def serve(url: str, services: int, export_ms: int) -> None:
    """Answer requests of ``services`` versions for ever, each with an exporter of its own."""
    found = []
    for number in range(services):
        exporter = OTLPMetricExporter(
            endpoint=f"{url}/v1/metrics", preferred_temporality={Histogram: AggregationTemporality.DELTA}
        )
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=export_ms)
        resource = Resource.create({"service.name": f"shop-{number}", "service.version": "v2"})
        meter = MeterProvider([reader], resource).get_meter("shop")
        found.append(meter.create_histogram("http.server.request.duration", "s"))
        time.sleep(random.random() * export_ms / 1000 / services)  # so that exports are not in step
    while True:
        for histogram in found:
            histogram.record(0.04, {"http.response.status_code": 200})
        time.sleep(0.01)


def rollout_of(number: int) -> RolloutRecord:
    """A rollout of one service, as the judge publishes it."""
    gate = Gate(
        signal="error_rate",
        slo=0.01,
        severe=0.05,
        quantile=None,
        window_s=60.0,
        min_samples=100,
        min_events=3,
    )
    service = f"shop-{number}"
    policy = Policy(
        service=service,
        environment="prod",
        weights_bp=(500, 10_000),
        gates=(gate,),
        traffic=Traffic(adapter="memory", target={"name": service}),
        telemetry=Telemetry(metrics="otlp"),
        interval_s=TICK_S,
    )
    spec = RolloutSpec(
        rollout_id=f"r-{number}",
        service=service,
        environment="prod",
        stable="v1",
        canary="v2",
        policy=policy,
        sources=(SourceRef(name="otlp", channel=Channel.METRICS),),
    )
    return RolloutRecord(
        spec=spec,
        phase=Phase.ANALYSING,
        seq=1,
        at=0.0,
        step_index=0,
        ordered_bp=500,
        verified_bp=500,
        generation=1,
        verdict=None,
        passes=0,
        pause_causes=(),
        reason="",
        waits_for="",
        eta_s=None,
        started_at=0.0,
    )


async def measure(seconds: float, services: int, export_ms: int) -> list[float]:
    """Ages in seconds, one per published sample that counted something."""
    [port] = free_ports(1)
    clock = SystemClock()
    ages: list[float] = []

    async def publish(channel: Channel, partition: int, frame: SampleFrame) -> None:
        lag = clock.now() - frame.report.end
        ages.extend(each.age_s + lag for each in unpack_samples(frame) if each.exposure)

    settings = {"otlp": {"kind": "otlp", "carries": "metrics", "listen": f"127.0.0.1:{port}"}}
    poller = Poller(
        open_sources(read_sources(settings), clock),
        partitions=1,
        partition_of=lambda rollout, partitions: 0,
        publish=publish,
        clock=clock,
    )

    async def rollouts() -> AsyncIterator[RolloutRecord]:
        for number in range(services):
            yield rollout_of(number)
        await asyncio.Event().wait()

    polling = asyncio.create_task(poller.run(rollouts()))
    await asyncio.sleep(1.5 * TICK_S)
    given = [f"http://127.0.0.1:{port}", str(services), str(export_ms)]
    service = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.freshness", "--serve", *given)
    try:
        await asyncio.sleep(SETTLE_S)
        ages.clear()
        await asyncio.sleep(seconds)
        return ages
    finally:
        service.kill()
        await service.wait()
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.freshness", description="Age of counted requests.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--services", type=int, default=20)
    parser.add_argument("--export-ms", type=int, default=1000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        url, services, export_ms = options.serve
        serve(url, int(services), int(export_ms))
    ages = asyncio.run(measure(options.seconds, options.services, options.export_ms))
    cuts = quantiles(ages, n=100)
    found = {"samples": len(ages), "age_p50_s": cuts[49], "age_p95_s": cuts[94], "age_p99_s": cuts[98]}
    if options.json:
        print(json.dumps(found))
    else:
        print("  ".join(f"{name} {value:.3f}" for name, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
