"""Fixtures shared by all tests: real servers, and the settings to reach them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streams.settings import StreamSettings
from tests.servers import running_broker


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[StreamSettings]:
    """A fresh embedded broker; the settings that reach it."""
    async with running_broker(tmp_path) as server:
        yield StreamSettings.embedded(server.bootstrap)
