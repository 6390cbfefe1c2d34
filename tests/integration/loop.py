"""The closed loop with real parts, and ways to break it: all roles in one process, or one process each."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from msgspec.structs import replace
from sqlalchemy import Engine, select

from domain.clock import SystemClock
from domain.decision import CommandKind
from domain.policy import Policy, check
from domain.policy_text import parse_policy
from domain.records import Command, Evaluation, RestartInput
from domain.rollout import Phase, RolloutSpec, sources_of
from scorers.replay import verify
from sentra.config import Settings, load
from sentra.embedded.broker import TansuBroker
from sentra.embedded.demo.plane import CANARY, STABLE, DataPlane
from sentra.embedded.ports import free_port
from sentra.embedded.processes import Child
from sentra.embedded.stack import Stack
from store.database import open_engine, reading, upgrade
from store.journal import ActionState
from store.models import Action, EvaluationRow
from store.repository import Repository
from tests.integration.reading import LogReader
from tests.integration.routes import RoutesWatch, Version

Measured = Callable[[str, float], None]
"""Notes a figure in seconds: ``measured("judge killed -> next evaluation", 3.2)``."""

RPS = 120.0
WITHIN_S = 90.0
CLOCK = SystemClock()

_POLICY = """\
service: demo
environment: local
strategy: canary
weights: [20, 50, 100]
warmup: 1s
interval: 1s
window: 3s
pass_count: 2
min_step_time: 2s
max_step_time: 60s
pause_timeout: 6s
keep_stable_for: 1s
min_samples: 20
min_events: 3
verify_timeout: 10s
on_no_data: {hold: 30s, then: pause}
judge: threshold
gates:
  - {signal: error_rate, slo: "<= 1%", severe: ">= 5%"}
  - {signal: latency_ms, quantile: 0.95, slo: "<= 400", severe: ">= 2000"}
  - {signal: log_error_ratio, slo: "<= 0.5%", severe: ">= 5%"}
telemetry: {metrics: envoy, logs: service-logs}
"""


def quick_policy(target: dict[str, str], **changes: Any) -> Policy:
    """Three steps of about three seconds each; ``changes`` are fields of :class:`Policy`."""
    where = "".join(f"    {key}: {value!r}\n" for key, value in target.items())
    policy = parse_policy(f"{_POLICY}traffic:\n  adapter: envoy\n  target:\n{where}")
    return check(replace(policy, **changes))


async def until(holds: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> None:
    """Wait until ``holds``; fail saying ``what`` did not come."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"within {within_s:g} s it did not come about that {what}")
        await asyncio.sleep(0.02)


class Loop:
    """One closed loop under test. ``settings_path`` is the file its workers are started with."""

    def __init__(self, settings_path: Path, plane: DataPlane | None, routes: RoutesWatch | None) -> None:
        self.settings_path = settings_path
        self._plane = plane
        self._routes = routes
        self.log = LogReader(self.settings.stream())
        self.engine: Engine = open_engine(self.settings.database_url)
        self.repository = Repository(self.engine)

    @property
    def settings(self) -> Settings:
        return load(self.settings_path)

    @property
    def plane(self) -> DataPlane:
        assert self._plane is not None, "this loop was made without traffic"
        return self._plane

    @property
    def routes(self) -> RoutesWatch:
        assert self._routes is not None, "this loop was made without traffic"
        return self._routes

    async def aclose(self) -> None:
        await self.log.aclose()
        self.engine.dispose()

    async def read_new_log(self) -> None:
        """After the broker was replaced: follow the new one from its beginning."""
        await self.log.aclose()
        self.log = LogReader(self.settings.stream())
        await self.log.__aenter__()

    # --- what people do

    def start(self, rollout_id: str = "", **changes: Any) -> str:
        """Ask for a rollout as the command line does; its id. ``changes`` are fields of the policy."""
        policy = quick_policy(self.plane.target, **changes)
        return self.start_policy(policy, rollout_id, sources_of(policy, self.settings.freshness()))

    def start_policy(self, policy: Policy, rollout_id: str, sources: Any) -> str:
        rollout_id = rollout_id or f"r-{uuid4().hex[:8]}"
        now = CLOCK.now()
        spec = RolloutSpec(
            rollout_id=rollout_id,
            service=policy.service,
            environment=policy.environment,
            stable=STABLE,
            canary=CANARY,
            policy=policy,
            sources=sources,
            created_at=now,
            created_by="test",
        )
        command = Command(
            command_id=str(uuid4()),
            rollout_id=rollout_id,
            kind=CommandKind.START,
            actor="test",
            at=now,
            spec=spec,
        )
        self.repository.start_rollout(spec, command)
        return rollout_id

    def command(self, rollout_id: str, kind: CommandKind, **more: Any) -> str:
        given = Command(
            command_id=str(uuid4()),
            rollout_id=rollout_id,
            kind=kind,
            actor="test",
            at=CLOCK.now(),
            reason="test",
            **more,
        )
        self.repository.add_command(given)
        return given.command_id

    # --- what is seen

    def phase(self, rollout_id: str) -> Phase | None:
        public = self.log.public.get(rollout_id)
        return public.phase if public else None

    async def until_phase(self, rollout_id: str, *phases: Phase, within_s: float = WITHIN_S) -> Phase:
        names = " or ".join(each.value for each in phases)
        await until(lambda: self.phase(rollout_id) in phases, f"{rollout_id} is {names}", within_s)
        phase = self.phase(rollout_id)
        assert phase is not None
        return phase

    async def until_in_force(self, rollout_id: str, step: int, within_s: float = WITHIN_S) -> None:
        """Until the weight of ``step`` (from 0) was seen in force and is being judged."""

        def is_there() -> bool:
            public = self.log.public.get(rollout_id)
            is_judged = public is not None and public.phase in (Phase.WARMING, Phase.ANALYSING, Phase.PAUSED)
            return is_judged and public is not None and public.step_index >= step

        await until(is_there, f"step {step} of {rollout_id} is in force", within_s)

    async def until_judged_after(self, moment: float, within_s: float = WITHIN_S) -> float:
        """Until an evaluation was published after ``moment``; how many seconds after."""
        await until(lambda: self.log.first_evaluation_after(moment) is not None, "judging goes on", within_s)
        return (self.log.first_evaluation_after(moment) or 0.0) - moment

    async def until_stored(self, rollout_id: str, within_s: float = 30.0) -> list[Evaluation]:
        """The stored evaluations, once the database has the end."""

        def is_stored() -> bool:
            found = self.repository.get_rollout(rollout_id)
            return found is not None and not found.is_active

        await until(is_stored, f"the database has the end of {rollout_id}", within_s)
        return self.repository.evaluations_of(rollout_id)

    def stored_seqs(self, rollout_id: str) -> list[int]:
        query = select(EvaluationRow.seq).where(EvaluationRow.rollout_id == rollout_id)
        with reading(self.engine) as connection:
            return list(connection.scalars(query.order_by(EvaluationRow.seq)))

    def journal(self, rollout_id: str) -> list[tuple[str, ActionState, int, int]]:
        """Decision id, state, attempts and weight of every order the journal knows, oldest first."""
        query = select(Action).where(Action.rollout_id == rollout_id).order_by(Action.id)
        with reading(self.engine) as connection:
            return [
                (row.decision_id, ActionState(row.state), row.attempts, row.weight_bp)
                for row in connection.execute(query)
            ]

    # --- what must hold

    def assert_nothing_lost_or_twice(self, rollout_id: str) -> None:
        """Invariants 3 and 5, from the log, the journal and the routes that Envoy was given."""
        orders = self.log.orders(rollout_id)
        journal = self.journal(rollout_id)
        ids = [decision_id for decision_id, *_ in journal]
        assert len(ids) == len(set(ids)), "a decision has one row"
        assert self.log.published_orders(rollout_id) == set(orders), "what was decided was published"
        assert set(ids) == set(orders), "what was ordered was journaled, and nothing else"
        for decision_id, state, attempts, weight in journal:
            assert state in (ActionState.VERIFIED, ActionState.SUPERSEDED), (weight, state)
            self._assert_one_effect(self.routes.writes_of(decision_id), attempts, weight)

    def _assert_one_effect(self, versions: list[Version], attempts: int, weight: int) -> None:
        """Within a reign an order is written once; a new reign may put its own stamp on the same split."""
        epochs = [version.version.partition(".")[0] for version in versions]
        assert len(epochs) == len(set(epochs)), f"the order to {weight} bp was written twice in one reign"
        assert len({version.canary_bp for version in versions}) <= 1
        assert len(versions) <= attempts

    def assert_seq_without_holes(self, rollout_id: str) -> None:
        """Every fold of the rollout is on the log once, by an owner that ruled."""
        seqs = [each.seq for each in self.log.evaluations(rollout_id)]
        assert seqs == list(range(1, len(seqs) + 1))

    async def assert_replays(self, rollout_id: str, *, log_was_lost: bool = False) -> list[Evaluation]:
        """Invariant 4: what is stored replays bit for bit, and is all there is.

        Where the log died (the embedded broker keeps nothing) its last moments may be missing; then the
        restart after them says so: its floor lies at or above what is missing.
        """
        stored = await self.until_stored(rollout_id)
        for before, after in pairwise(stored):
            is_told = isinstance(after.input, RestartInput) and after.input.seq_floor >= after.seq - 1
            assert after.seq == before.seq + 1 or (log_was_lost and is_told), (before.seq, after.seq)
        assert stored[0].seq == 1
        assert verify(stored) == []
        return stored


@asynccontextmanager
async def traffic(folder: Path, *, rps: float = RPS) -> AsyncIterator[tuple[DataPlane, RoutesWatch]]:
    """Two versions behind a real Envoy, users who ask, and an eye on the routes."""
    async with DataPlane(folder / "plane", seed=1) as plane:
        plane.start_load(rps, preview_rps=0.0)
        async with RoutesWatch(plane.envoy.routes_path) as routes:
            yield plane, routes


@asynccontextmanager
async def one_process(folder: Path) -> AsyncIterator[tuple[Loop, Stack]]:
    """The embedded stack: every role in one supervised process."""
    async with (
        traffic(folder) as (plane, routes),
        Stack(folder / ".sentra", sources=plane.sources) as stack,
    ):
        supervising = asyncio.create_task(stack.supervise())
        loop = Loop(stack.config_path, plane, routes)
        try:
            async with loop.log:
                yield loop, stack
        finally:
            supervising.cancel()
            await asyncio.gather(supervising, return_exceptions=True)
            await loop.aclose()


class Processes:
    """A broker and worker processes with roles of their own, as production runs them."""

    def __init__(self, folder: Path, *, partitions: int = 4, sources: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.broker = TansuBroker(free_port(), folder / "logs" / "broker.log")
        self.config_path = folder / "runtime.yaml"
        self.children: dict[str, Child] = {}
        self._partitions = partitions
        self._sources = sources or {}

    async def start_broker(self) -> None:
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        self.broker.start()
        await self.broker.wait_until_ready()
        settings = {
            "state_dir": str(self.folder / "state"),
            "profile": "embedded",
            "partitions": self._partitions,
            "bootstrap": self.broker.bootstrap,
            "broker_epoch": self.broker.cluster_id,
            "database": f"sqlite:///{self.folder / 'sentra.db'}",
            "sources": self._sources,
        }
        self.config_path.write_text(yaml.safe_dump(settings))
        upgrade(str(settings["database"]))

    async def start(self, *names: str) -> None:
        """Start workers and wait until they work. A name is its roles, and a suffix after ``#``."""
        await asyncio.gather(*(self._start(name) for name in names))

    async def _start(self, name: str) -> None:
        ready = self.folder / f"{name}.ready"
        ready.unlink(missing_ok=True)
        options = ["--roles", name.partition("#")[0], "--config", self.config_path, "--ready-file", ready]
        log_path = self.folder / "logs" / f"{name}.log"
        child = Child(
            f"worker {name}", [sys.executable, "-m", "sentra.cli.main", "worker", *options], log_path=log_path
        )
        self.children[name] = child
        child.start()

        async def is_ready() -> bool:
            return ready.exists() and ready.read_text() == str(child.pid)

        await child.wait_until_ready(is_ready, 60.0)

    def kill(self, name: str) -> float:
        """kill -9; when."""
        self.children[name].kill()
        return CLOCK.now()

    def freeze(self, name: str) -> None:
        os.kill(self.children[name].pid or 0, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        os.kill(self.children[name].pid or 0, signal.SIGCONT)

    async def stop(self) -> None:
        for child in self.children.values():
            child.kill()
        await self.broker.stop()


@asynccontextmanager
async def processes(
    folder: Path,
    *names: str,
    partitions: int = 4,
    with_traffic: bool = True,
    sources: dict[str, Any] | None = None,
) -> AsyncIterator[tuple[Loop, Processes]]:
    """Workers in processes of their own, with or without a data plane, then with ``sources`` of your own."""
    async with AsyncExitStack() as stack:
        plane, routes = await stack.enter_async_context(traffic(folder)) if with_traffic else (None, None)
        apart = Processes(folder, partitions=partitions, sources=plane.sources if plane else sources)
        stack.push_async_callback(apart.stop)
        await apart.start_broker()
        await apart.start(*names)
        loop = Loop(apart.config_path, plane, routes)
        stack.push_async_callback(loop.aclose)
        await stack.enter_async_context(loop.log)
        yield loop, apart
