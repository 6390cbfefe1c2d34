"""A worker process: agents on a Faust app. With `streams/transport.py` the only place that knows Faust.

Faust brings the consumer group, its thread of heartbeats, rebalancing, flow control and commits. The agents,
and the loop that keeps their promises, are in `streams/runner.py` and know nothing of it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from domain.clock import Clock, SystemClock
from domain.errors import ConfigError
from streams import transport
from streams.agent import Agent, Place
from streams.bus import BrokerUnavailable
from streams.consume import KafkaBus, committed_offsets, incoming
from streams.runner import Health, Runner
from streams.settings import StreamSettings

log = logging.getLogger(__name__)

STOP_S = 10.0
"""After this a stop no longer waits for the transport's good manners."""


def make_app(name: str, settings: StreamSettings, *, datadir: Path, web_port: int) -> transport.App:
    """A Faust app in the consumer group ``name``, without tables, web server, producer or topics of its own.

    ``datadir`` is where Faust keeps its (empty) folders. ``web_port`` never opens; it only has to differ
    between workers of one machine, because Faust names them by it.
    """
    transport.register()
    # Its "woke up too late" lines say that the machine was busy, over and over.
    logging.getLogger("mode.timers").setLevel(logging.ERROR)
    datadir.mkdir(parents=True, exist_ok=True)
    app = transport.App(
        name,
        broker=f"{transport.SCHEME}://{settings.servers()[0]}",
        datadir=datadir / name,
        store="memory://",
        web_enabled=False,
        web_port=web_port,
        TableManager=transport.PromptTableManager,
        table_standby_replicas=0,
        topic_disable_leader=True,
        topic_allow_declare=False,
        topic_partitions=settings.partitions,
        processing_guarantee="at_least_once",
        broker_request_timeout=settings.request_timeout_s,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.heartbeat_interval_s,
        broker_rebalance_timeout=settings.rebalance_timeout_s,
        broker_commit_interval=settings.commit_interval_s,
        broker_max_poll_records=settings.max_poll_records,
        stream_buffer_maxsize=settings.buffer_records,
        # Waiting for empty streams can hang a rebalance on one stuck record; the runner bounds that wait.
        stream_wait_empty=False,
        stream_processing_timeout=settings.processing_timeout_s,
        cython_optimizations=True,
    )
    app.stream_settings = settings
    return app


class Worker:
    """Some agents in one process and one consumer group, named after them.

    Several workers with the same agents share the partitions. ``start`` returns when the worker has joined
    its group; recovery of the agents may still be going on, `health` tells.
    """

    def __init__(
        self,
        settings: StreamSettings,
        agents: Sequence[Agent],
        *,
        datadir: Path,
        clock: Clock | None = None,
        web_port: int = 6066,
    ) -> None:
        if not agents:
            raise ConfigError("a worker needs at least one agent")
        self._settings = settings
        self._agents = list(agents)
        self._clock = clock or SystemClock()
        self._datadir = datadir
        self._web_port = web_port
        self._bus = KafkaBus(settings)
        self._runners: list[Runner] = []
        self._app: transport.App | None = None

    @property
    def group(self) -> str:
        """The consumer group, as the broker knows it."""
        return self._settings.wire_name("sentra-" + "-".join(sorted(agent.name for agent in self._agents)))

    async def start(self) -> None:
        """Connect and join the group.

        Raises
        ------
        BrokerUnavailable
            Nobody answers.
        """
        await self._bus.start()
        self._runners = [self._new_runner(agent) for agent in self._agents]
        self._app = self._new_app()
        try:
            await self._app.start()
        except Exception as exc:
            await self.stop()
            raise BrokerUnavailable(f"worker {self.group} did not start: {exc}") from exc

    async def stop(self) -> None:
        """Finish the record in hand, commit, leave the group, forget. Safe to repeat."""
        for runner in self._runners:
            await runner.pause()
        app, self._app = self._app, None
        if app is not None:
            await self._leave(app)
        for runner in self._runners:
            await runner.revoke()
        self._runners = []
        await self._bus.stop()

    async def run_forever(self) -> None:
        """Start, work until SIGTERM or SIGINT, stop.

        Raises
        ------
        BrokerUnavailable
            The transport gave up; the supervisor of this process should start it again.
        """
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, asked.set)
        try:
            await self.start()
            await self._until(asked)
        finally:
            await self.stop()
            for signum in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(signum)

    def health(self) -> Mapping[str, Health]:
        """What each agent is doing, by name."""
        return {runner.agent.name: runner.health for runner in self._runners}

    # --- wiring

    def _new_runner(self, agent: Agent) -> Runner:
        async def committed(places: Sequence[Place]) -> Mapping[Place, int]:
            return await committed_offsets(self._settings, self.group, places)

        return Runner(agent, self._bus, settings=self._settings, clock=self._clock, committed=committed)

    def _new_app(self) -> transport.App:
        app = make_app(self.group, self._settings, datadir=self._datadir, web_port=self._web_port)
        app.progress = self._progress
        app.on_partitions_assigned.connect(self._on_assigned)
        app.on_partitions_revoked.connect(self._on_revoked)
        for runner in self._runners:
            topics = [self._settings.wire_name(topic) for topic in runner.agent.topics]
            channel = app.topic(
                *topics, key_type=bytes, key_serializer="raw", value_type=bytes, value_serializer="raw"
            )
            app.agent(channel, name=runner.agent.name)(self._loop_over(runner))
        return app

    def _loop_over(self, runner: Runner) -> Callable[[Any], Coroutine[Any, Any, None]]:
        settings = self._settings

        async def loop(stream: Any) -> None:
            async for event in stream.events():
                await runner.feed(incoming(settings, event.message))

        return loop

    def _progress(self) -> Mapping[Place, int]:
        """What may be committed: a record counts when every agent that reads its topic has handled it."""
        handled: dict[Place, list[int]] = {}
        for runner in self._runners:
            for (topic, partition), offset in runner.progress().items():
                handled.setdefault((topic, partition), []).append(offset)
        return {
            (self._settings.wire_name(topic), partition): min(offsets)
            for (topic, partition), offsets in handled.items()
            if len(offsets) == sum(topic in runner.agent.topics for runner in self._runners)
        }

    async def _on_assigned(self, _app: Any, /, *args: Any, **_: Any) -> None:
        assigned: set[Any] = args[0]
        owned: dict[str, set[int]] = {}
        for place in assigned:
            owned.setdefault(self._settings.plain_name(place.topic), set()).add(place.partition)
        frozen = {topic: frozenset(partitions) for topic, partitions in owned.items()}
        for runner in self._runners:
            await runner.assign(frozen)

    async def _on_revoked(self, *_args: Any, **_: Any) -> None:
        for runner in self._runners:
            await runner.revoke()

    async def _until(self, asked: asyncio.Event) -> None:
        """Return when asked to stop; raise when the app has ended by itself."""
        app = self._app
        assert app is not None
        ended = asyncio.ensure_future(app.wait_until_stopped())
        wanted = asyncio.ensure_future(asked.wait())
        try:
            await asyncio.wait({ended, wanted}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                cause = ended.exception()
                raise BrokerUnavailable(f"worker {self.group}: the transport gave up: {cause}") from cause
        finally:
            ended.cancel()
            wanted.cancel()

    async def _leave(self, app: transport.App) -> None:
        try:
            await asyncio.wait_for(app.stop(), STOP_S)
        except TimeoutError:
            log.error("worker %s did not stop within %s s", self.group, STOP_S)
