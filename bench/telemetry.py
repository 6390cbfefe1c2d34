"""One grouped poll beside one query per rollout and gate, on the same real Prometheus in the same run.

``python -m bench.telemetry [--services 1000] [--rollouts 10 100 1000] [--rounds 5] [--json]``. Needs Debian's
``prometheus`` on PATH. A small exporter shows two versions of every service on two pods each, 17 series a
pod. *Grouped* is the Prometheus source as the poller uses it: exact counts of errors and of latency at the
limit, for all rollouts. *Separate* is what controllers do that ask per rollout and gate: the ratio of errors
and the p95 of each version, four queries a rollout, on eight connections. Every round is a tick of 5 s, so
that there is something new to count. CPU seconds are those of the whole server process, which goes on
scraping meanwhile, and of this one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from time import perf_counter, process_time

import httpx
from rich.console import Console
from rich.table import Table

from domain.clock import SystemClock, tick_floor
from sentra.embedded.ports import HOST, free_ports
from sentra.embedded.processes import Child
from streams.pollers.base import Target
from streams.pollers.prometheus import PrometheusSource
from streams.pollers.prometheus_answers import RawSeries
from streams.pollers.prometheus_settings import PrometheusSettings

INTERVAL_S = 5.0
EDGES = ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "+Inf")
CODES = ("200", "404", "503")
CONNECTIONS = 8
LIMIT_MS = 250.0

_CONFIG = """
global: {{scrape_interval: 5s, scrape_timeout: 5s}}
scrape_configs:
  - {{job_name: pods, honor_labels: true, static_configs: [{{targets: ["{target}"]}}]}}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One number of rollouts; medians over the rounds."""

    rollouts: int
    grouped_queries: int
    separate_queries: int
    grouped_ms: float
    separate_ms: float
    wall_ratio: float
    server_cpu_ratio: float
    own_cpu_ratio: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What one way of asking took."""

    wall_s: float
    server_s: float
    own_s: float


# The exporter: a process of its own.


def page_of(services: int, scrape: int) -> str:
    """All pods' counters at the ``scrape``-th scrape."""
    lines = []
    for service in range(services):
        for version in ("v1", "v2"):
            for pod in ("a", "b"):
                own = f'service="s{service}",version="{version}",instance="s{service}-{version}-{pod}"'
                lines += [f'http_requests_total{{{own},code="{code}"}} {100 + scrape * 7}' for code in CODES]
                lines += [f'http_seconds_bucket{{{own},le="{edge}"}} {300 + scrape * 21}' for edge in EDGES]
                lines += [f"http_seconds_count{{{own}}} {300 + scrape * 21}", f"http_seconds_sum{{{own}}} 1"]
    return "\n".join(lines) + "\n"


async def export(port: int, services: int) -> None:
    """Answer scrapes until killed."""
    scrapes = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal scrapes
        await reader.readuntil(b"\r\n\r\n")
        scrapes += 1
        body = page_of(services, scrapes).encode()
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n"
        )
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, HOST, port) as server:
        await server.serve_forever()


# The two ways.


class Grouped:
    """The source, tick after tick."""

    def __init__(self, url: str, rollouts: int) -> None:
        settings = {
            "kind": "prometheus",
            "url": url,
            "requests": "http_requests_total",
            "error_label": "code",
            "error_values": "5..",
            "latency": "http_seconds",
            "service_label": "service",
        }
        self.source = PrometheusSource("prom", PrometheusSettings.read("prom", settings), SystemClock())
        self.targets = [
            Target(
                rollout_id=f"r{number}",
                service=f"s{number}",
                environment="prod",
                stable="v1",
                canary="v2",
                signals={"error_rate": (), "latency_ms": (LIMIT_MS,)},
            )
            for number in range(rollouts)
        ]
        self.queries = 0
        self._query = self.source.client.query
        self.source.client.query = self._count  # type: ignore[method-assign] # only looks on

    async def _count(self, text: str, at: float, timeout_s: float) -> list[RawSeries]:
        self.queries += 1
        return await self._query(text, at, 60.0)

    async def ask(self) -> None:
        """One fetch, now."""
        self.queries = 0
        await self.source.fetch(self.targets, tick_floor(SystemClock().now(), INTERVAL_S), INTERVAL_S)


class Separate:
    """Four queries a rollout."""

    def __init__(self, url: str, rollouts: int) -> None:
        self.client = httpx.AsyncClient(base_url=url, trust_env=False, timeout=60.0)
        self.queries = [query for number in range(rollouts) for query in _queries(f"s{number}")]

    async def ask(self) -> None:
        """All queries, as many at a time as there are connections."""
        gate = asyncio.Semaphore(CONNECTIONS)

        async def ask(query: str) -> None:
            async with gate:
                answer = await self.client.post("/api/v1/query", data={"query": query})
                assert answer.json()["data"]["result"], query

        await asyncio.gather(*(ask(query) for query in self.queries))


def _queries(service: str) -> list[str]:
    found = []
    for version in ("v1", "v2"):
        own = f'service="{service}",version="{version}"'
        found += [
            f'sum(rate(http_requests_total{{{own},code=~"5.."}}[30s]))'
            f" / sum(rate(http_requests_total{{{own}}}[30s]))",
            f"histogram_quantile(0.95, sum by (le) (rate(http_seconds_bucket{{{own}}}[30s])))",
        ]
    return found


# The run.


async def measure(pid: int, ask: Callable[[], Awaitable[None]], rounds: int) -> Cost:
    """Medians of ``rounds`` rounds after an uncounted one; the mean of the server's coarse CPU clock."""
    await ask()
    costs = []
    for _ in range(rounds):
        await asyncio.sleep(INTERVAL_S - SystemClock().now() % INTERVAL_S)
        wall, server, own = perf_counter(), _cpu_s(pid), process_time()
        await ask()
        costs.append((perf_counter() - wall, _cpu_s(pid) - server, process_time() - own))
    walls, servers, owns = zip(*costs, strict=True)
    return Cost(median(walls), fmean(servers), median(owns))


async def compare(url: str, pid: int, rollouts: int, rounds: int) -> Row:
    """Both ways, one after the other."""
    grouped, separate = Grouped(url, rollouts), Separate(url, rollouts)
    try:
        one = await measure(pid, grouped.ask, rounds)
        many = await measure(pid, separate.ask, max(1, rounds // 2))
    finally:
        await grouped.source.close()
        await separate.client.aclose()
    return Row(
        rollouts=rollouts,
        grouped_queries=grouped.queries,
        separate_queries=len(separate.queries),
        grouped_ms=1000 * one.wall_s,
        separate_ms=1000 * many.wall_s,
        wall_ratio=many.wall_s / one.wall_s,
        # A clock that stands still for less than a hundredth of a second: then this is a lower bound.
        server_cpu_ratio=many.server_s / max(one.server_s, 0.01 / rounds),
        own_cpu_ratio=many.own_s / one.own_s,
    )


@asynccontextmanager
async def fleet(services: int) -> AsyncIterator[tuple[str, int]]:
    """A Prometheus that has scraped the exporter often enough; its URL and pid."""
    program = shutil.which("prometheus")
    if program is None:
        sys.exit("needs prometheus on PATH (apt-get install prometheus)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port, target = free_ports(2)
        (folder / "prometheus.yml").write_text(_CONFIG.format(target=f"{HOST}:{target}"))
        exporter = Child(
            "exporter",
            [sys.executable, "-m", "bench.telemetry", "--export", str(target), "--services", str(services)],
            log_path=folder / "exporter.log",
        )
        server = Child(
            "Prometheus",
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={HOST}:{port}",
                "--log.level=warn",
            ],
            log_path=folder / "prometheus.log",
        )
        exporter.start()
        server.start()
        try:
            url = f"http://{HOST}:{port}"
            await server.wait_until_ready(lambda: _has_history(url), 120.0)
            assert server.pid is not None
            yield url, server.pid
        finally:
            await server.stop()
            await exporter.stop()


async def _has_history(url: str) -> bool:
    """Whether a window of 30 s holds several scrapes."""
    query = 'min(count_over_time(http_seconds_count{service="s0"}[60s])) >= 6'
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"{url}/api/v1/query", params={"query": query})
        return bool(answer.status_code == 200 and answer.json()["data"]["result"])
    except httpx.HTTPError:
        return False


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def run(services: int, rollouts: list[int], rounds: int) -> list[Row]:
    """A row for each number of rollouts."""
    async with fleet(services) as (url, pid):
        return [await compare(url, pid, count, rounds) for count in rollouts]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--rollouts", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--export", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.export:
        asyncio.run(export(asked.export, asked.services))
        return
    rows = asyncio.run(run(asked.services, asked.rollouts, asked.rounds))
    if asked.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    table = Table(*asdict(rows[0]))
    for row in rows:
        table.add_row(
            *(f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" for value in asdict(row).values())
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
