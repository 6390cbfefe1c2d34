"""What the conformance suite runs on: one rig per adapter, each with a pristine target."""

from __future__ import annotations

from dataclasses import replace

from actuators.base import Binding, TrafficAdapter
from actuators.memory import MemoryAdapter, Platform
from domain.units import FULL_BP

BINDING = Binding(service="demo", stable="v1", canary="v2", environment="test")


class MemoryRig:
    """The platform in memory."""

    name = "memory"

    def __init__(self) -> None:
        self.binding = BINDING
        self.platform = Platform({"v1": FULL_BP}, versions={"v1", "v2"})
        self.platform.stored = replace(self.platform.stored, strangers='{"timeouts": [1, 2.50]}')

    def open(self, binding: Binding | None = None) -> TrafficAdapter:
        return MemoryAdapter(binding or self.binding, self.platform)

    async def writes(self) -> int:
        return self.platform.writes

    async def edit(self, canary_bp: int) -> None:
        self.platform.edit({"v1": FULL_BP - canary_bp, "v2": canary_bp})

    async def strangers(self) -> bytes:
        return self.platform.stored.strangers.encode()

    async def splits(self) -> list[int]:
        return [state.weights.get("v2", 0) for state in self.platform.states]

    async def lose_answer(self) -> None:
        self.platform.faults.lose_answers = 1

    async def delay(self, seconds: float) -> None:
        self.platform.faults.propagation_s = seconds

    async def retire_canary(self) -> None:
        self.platform.versions = {"v1"}
