"""How fast and how cleanly traffic moves: real Envoy, real services, real users, the whole actuation path.

``python -m bench.actuation [--json] [--shifts 100] [--rollbacks 10] [--rps 500]``

Users send requests at a fixed rate through Envoy to two versions. Decisions are handed to the target driver,
which journals them in SQLite, writes Envoy's routes and reads the version back. The object of ``--json``:

``shifts``, ``rollbacks``
    How many orders of each kind were measured.
``rps``, ``requests``
    Requests per second that were due, and how many were sent altogether.
``failed_requests``
    Without an answer, or answered with 5xx. To reach: 0.
``decision_to_effect_p50_ms``, ``decision_to_effect_p99_ms``
    From handing over a decision to the report that Envoy works with the new routes; journal included. To
    reach: at most 250 ms (p99).
``rollback_to_effect_p50_ms``, ``rollback_to_effect_max_ms``
    The same for roll-backs (RESTORE).
``severe_to_zero_p50_ms``, ``severe_to_zero_max_ms``
    From handing over a roll-back from 70 % to the moment the last request was sent that still reached the
    canary. Resolution: the gap between two requests.
``load_lag_p99_ms``
    How late the load generator sent. Large values mean that the machine was too busy to trust the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from domain.clock import SystemClock
from domain.decision import ActionOutcome, Cause, Decision, DecisionKind, Order, decision_id
from domain.policy import MatchRule, Traffic
from domain.records import ActionRecord, DecisionRecord
from sentra.embedded.demo.control import ServiceVersion, load_child
from sentra.embedded.demo.request_log import Request, percentile, read_requests, summarise
from sentra.embedded.envoy import EnvoyProxy
from sentra.embedded.ports import free_ports
from store.database import open_engine, upgrade
from store.journal import Journal
from store.leases import Leases
from streams.agents.targets import TargetDriver

WEIGHTS_BP = (500, 2_000, 4_000, 7_000, 2_500)
"""Shifts go round through these: small and large ones, up and down."""

SEVERE_AT_BP = 7_000
BETWEEN_S = 0.05
"""Pause between shifts, so that requests meet every split."""

TARGET_P99_MS = 250.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured; keys and units as in the module's docstring."""

    shifts: int
    rollbacks: int
    rps: float
    requests: int
    failed_requests: int
    decision_to_effect_p50_ms: float
    decision_to_effect_p99_ms: float
    rollback_to_effect_p50_ms: float
    rollback_to_effect_max_ms: float
    severe_to_zero_p50_ms: float
    severe_to_zero_max_ms: float
    load_lag_p99_ms: float


class Orders:
    """Hands decisions to the driver and waits for their outcome."""

    def __init__(self, proxy: EnvoyProxy) -> None:
        self._proxy = proxy
        self._clock = SystemClock()
        self._verified: dict[str, asyncio.Future[ActionRecord]] = {}
        self._generation = 0

    async def hear(self, record: ActionRecord) -> None:
        """The driver's reports."""
        waiting = self._verified.get(record.decision_id)
        if waiting is None or waiting.done() or record.outcome is ActionOutcome.SENT:
            return
        if record.outcome is ActionOutcome.VERIFIED:
            waiting.set_result(record)
        else:
            waiting.set_exception(RuntimeError(f"{record.outcome.value}: {record.detail}"))

    async def give(self, driver: TargetDriver, rollout: str, order: Order, bp: int) -> tuple[float, float]:
        """One order; when it was handed over (epoch seconds) and how long it took (milliseconds)."""
        self._generation += 1
        record = self._record(rollout, order, bp)
        waiting = asyncio.get_running_loop().create_future()
        self._verified[record.decision.decision_id] = waiting
        handed_over = self._clock.now()
        await driver.accept(record)
        async with asyncio.timeout(30):
            await waiting
        return handed_over, (self._clock.now() - handed_over) * 1000

    def _record(self, rollout: str, order: Order, bp: int) -> DecisionRecord:
        is_down = order is Order.RESTORE
        decision = Decision(
            decision_id=decision_id(rollout, self._generation),
            rollout_id=rollout,
            seq=self._generation,
            kind=DecisionKind.ROLL_BACK if is_down else DecisionKind.ADVANCE,
            cause=Cause.SEVERE if is_down else Cause.PASSED,
            reason="measuring",
            order=order,
            weight_bp=bp,
            generation=self._generation,
            at=self._clock.now(),
        )
        target: dict[str, str | int | float | bool] = {
            "rds": str(self._proxy.routes_path),
            "admin": self._proxy.admin_url,
        }
        return DecisionRecord(
            decision=decision,
            service="demo",
            environment="bench",
            stable="v1",
            canary="v2",
            traffic=Traffic(adapter="envoy", target=target),
            match=MatchRule(),
            target_key="envoy:bench",
            owner="bench",
            owner_epoch=1,
            verify_timeout_s=10.0,
        )


async def measure(folder: Path, *, shifts: int, rollbacks: int, rps: float) -> Figures:
    """Run the whole measurement in ``folder``."""
    requests = folder / "requests.jsonl"
    async with running_proxy(folder) as proxy:
        load = load_child(proxy.url, rps, folder)
        load.start()
        try:
            await _until_written(requests)
            shifted, rolled_back = await _move(proxy, folder, shifts, rollbacks)
            await asyncio.sleep(0.5)  # users go on for a moment, so that a late failure is seen
        finally:
            await load.stop(10.0)
    rows = sorted(read_requests(requests))
    total = summarise(rows)
    to_zero = sorted(_last_canary_ms(rows, at) for at, _ in rolled_back)
    down = sorted(took for _, took in rolled_back)
    return Figures(
        shifts=shifts,
        rollbacks=rollbacks,
        rps=rps,
        requests=total.requests,
        failed_requests=total.failed,
        decision_to_effect_p50_ms=percentile(sorted(shifted), 0.50),
        decision_to_effect_p99_ms=percentile(sorted(shifted), 0.99),
        rollback_to_effect_p50_ms=percentile(down, 0.50),
        rollback_to_effect_max_ms=percentile(down, 1.0),
        severe_to_zero_p50_ms=percentile(to_zero, 0.50),
        severe_to_zero_max_ms=percentile(to_zero, 1.0),
        load_lag_p99_ms=total.lag_p99_ms,
    )


@asynccontextmanager
async def running_proxy(folder: Path) -> AsyncIterator[EnvoyProxy]:
    """v1 and v2 behind Envoy."""
    listen, admin, one, two = free_ports(4)
    async with AsyncExitStack() as running:
        for version, port in (("v1", one), ("v2", two)):
            service = ServiceVersion(version, port, folder)
            service.start()
            running.push_async_callback(service.stop)
            await service.wait_until_ready()
        proxy = EnvoyProxy(folder, listen, admin, {"v1": one, "v2": two})
        proxy.start()
        running.push_async_callback(proxy.stop)
        await proxy.wait_until_ready()
        yield proxy


async def _move(
    proxy: EnvoyProxy, folder: Path, shifts: int, rollbacks: int
) -> tuple[list[float], list[tuple[float, float]]]:
    """Milliseconds of each shift; moment and milliseconds of each roll-back."""
    url = f"sqlite:///{folder / 'bench.db'}"
    upgrade(url)
    engine = open_engine(url)
    orders = Orders(proxy)
    driver = TargetDriver(
        journal=Journal(engine),
        epochs=Leases(engine),
        publish=orders.hear,
        owner="bench",
        clock=SystemClock(),
    )
    try:
        shifted = []
        await orders.give(driver, "ladder", Order.PREPARE, 0)
        for number in range(shifts):
            bp = WEIGHTS_BP[number % len(WEIGHTS_BP)]
            shifted.append((await orders.give(driver, "ladder", Order.SHIFT, bp))[1])
            await asyncio.sleep(BETWEEN_S)
        await orders.give(driver, "ladder", Order.RESTORE, 0)
        rolled_back = [await _roll_back(orders, driver, number) for number in range(rollbacks)]
    finally:
        await driver.aclose()
        engine.dispose()
    return shifted, rolled_back


async def _roll_back(orders: Orders, driver: TargetDriver, number: int) -> tuple[float, float]:
    """A rollout of its own that reaches 70 % and is rolled back."""
    rollout = f"severe-{number}"
    await orders.give(driver, rollout, Order.PREPARE, 0)
    await orders.give(driver, rollout, Order.SHIFT, SEVERE_AT_BP)
    await asyncio.sleep(0.2)
    result = await orders.give(driver, rollout, Order.RESTORE, 0)
    await asyncio.sleep(0.2)
    return result


def _last_canary_ms(rows: list[Request], handed_over: float) -> float:
    """From the order to the last request sent that reached the canary, before the next rollout begins."""
    late = [row.sent for row in rows if row.version == "v2" and handed_over <= row.sent < handed_over + 0.2]
    return (max(late, default=handed_over) - handed_over) * 1000


async def _until_written(path: Path) -> None:
    async with asyncio.timeout(15):
        while not path.exists() or path.stat().st_size == 0:
            await asyncio.sleep(0.05)


def _print(figures: Figures) -> None:
    table = Table("figure", "measured", "to reach")
    wanted = {"failed_requests": "0", "decision_to_effect_p99_ms": f"<= {TARGET_P99_MS:g}"}
    for name, value in asdict(figures).items():
        table.add_row(name, f"{value:g}", wanted.get(name, ""))
    Console().print(table)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="bench.actuation", description="Traffic shifts on a real Envoy.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--shifts", type=int, default=100)
    parser.add_argument("--rollbacks", type=int, default=10)
    parser.add_argument("--rps", type=float, default=500.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sentra-bench-") as folder:
        figures = asyncio.run(
            measure(Path(folder), shifts=asked.shifts, rollbacks=asked.rollbacks, rps=asked.rps)
        )
    if asked.json:
        print(json.dumps(asdict(figures)))
    else:
        _print(figures)


if __name__ == "__main__":
    main()
