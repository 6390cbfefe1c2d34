"""Every adapter against every check, one test each, named ``adapter:check``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actuators.checks import CHECKS, Rig, Skipped
from tests.conformance.rigs import EnvoyRig, MemoryRig, add_strangers, running_envoy

RIGS = ("memory", pytest.param("envoy", marks=pytest.mark.server))


@asynccontextmanager
async def _rig(name: str, folder: Path) -> AsyncIterator[Rig]:
    match name:
        case "memory":
            yield MemoryRig()
        case "envoy":
            async with running_envoy(folder) as proxy:
                add_strangers(proxy.routes_path)
                yield EnvoyRig(proxy)
        case _:
            raise AssertionError(f"no rig {name!r}")


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("adapter", RIGS)
async def test_adapter(adapter: str, check: str, tmp_path: Path) -> None:
    async with _rig(adapter, tmp_path) as rig:
        try:
            await CHECKS[check](rig)
        except Skipped as reason:
            pytest.skip(f"{adapter}: {reason}")
