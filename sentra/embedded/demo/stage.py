"""What a scenario's script can do and see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from domain.clock import Clock, tick_floor
from domain.policy import Policy
from sentra.embedded.demo.behaviour import HEALTHY, Fault
from sentra.embedded.demo.plane import CANARY, DataPlane
from sentra.embedded.demo.story import Story

LOOK_S = 0.01
"""How often a script looks at the story; small beside a tick."""


class Stage:
    """The demo's stage: the data plane to act upon, the story to wait for."""

    def __init__(self, plane: DataPlane, story: Story, policy: Policy, clock: Clock, seed: int) -> None:
        self._plane = plane
        self._story = story
        self.policy = policy
        self.clock = clock
        self.random = Random(seed)
        self.fault_at: float | None = None
        """When the first fault began."""
        self.killed: dict[str, float] = {}
        """Versions that the scenario itself killed, and when."""

    async def pause(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def until_next_tick(self) -> None:
        """Wait for the end of the tick that is under way."""
        interval_s, now = self.policy.interval_s, self.clock.now()
        await self.pause(tick_floor(now, interval_s) + interval_s - now)

    async def until_in_force(self, step: int) -> None:
        """Wait until a step's weight (0 is the first step) is in force."""
        await self._until(lambda: self._story.is_in_force(step))

    async def until_passes(self, step: int, passes: int) -> None:
        """Wait until a step has passed so many ticks in a row."""
        await self.until_in_force(step)
        await self._until(lambda: self._story.passes >= passes)

    async def canary_does(self, fault: Fault) -> None:
        """Change how the canary behaves."""
        await self._plane.canary.inject(fault)
        self._note("the fault ends" if fault == HEALTHY else "the fault begins")

    async def both_do(self, fault: Fault) -> None:
        """Change how both versions behave: the trouble is not the canary's."""
        await self.both_usually(fault)
        self._note("the fault begins in both versions")

    async def both_usually(self, fault: Fault) -> None:
        """What is usual for both versions, and so no fault of the story."""
        await asyncio.gather(self._plane.stable.inject(fault), self._plane.canary.inject(fault))

    def kill_canary(self) -> None:
        """End the canary process as a crash does."""
        self.killed[CANARY] = self.clock.now()
        self._plane.canary.kill()
        self._note("the canary is killed")

    def stop_telemetry(self) -> None:
        """Scrapes connect, and then hear nothing."""
        self._plane.relay.black_hole()
        self._note("telemetry stops")

    def _note(self, what: str) -> None:
        now = self.clock.now()
        if self.fault_at is None:
            self.fault_at = now
        self._story.events.append((now, what))

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            await asyncio.sleep(LOOK_S)
