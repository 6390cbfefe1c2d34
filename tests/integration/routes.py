"""What became effective in Envoy: every version of its routes file, with who wrote it for which order."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from actuators.envoy_routes import Names, parse

LOOK_S = 0.003
"""A write is followed by a read-back of some milliseconds before the next one can come."""


@dataclass(frozen=True, slots=True)
class Version:
    """One state of the file. ``op_id`` is the decision it was written for."""

    version: str
    op_id: str
    canary_bp: int | None


class RoutesWatch:
    """Notes each version of the file while it is open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._task: asyncio.Task[None] | None = None
        self.versions: list[Version] = []

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch(), name="routes watch")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        seen = 0
        while True:
            stamp = self._path.stat().st_ino if self._path.exists() else 0
            if stamp not in (0, seen):
                seen = stamp
                self._note(self._path.read_bytes())
            await asyncio.sleep(LOOK_S)

    def _note(self, text: bytes) -> None:
        names = Names(configuration="sentra", stable="demo_v1", canary="demo_v2")
        routes = parse(text, names)
        op_id = routes.written.op_id if routes.written else ""
        found = Version(str(json.loads(text)["version_info"]), op_id, routes.canary_bp(names))
        if not self.versions or self.versions[-1] != found:
            self.versions.append(found)

    @property
    def splits(self) -> list[int]:
        """The canary's weights that were in force one after the other, without repetitions."""
        changes: list[int] = []
        for each in self.versions:
            if each.canary_bp is not None and (not changes or changes[-1] != each.canary_bp):
                changes.append(each.canary_bp)
        return changes

    def writes_of(self, op_id: str) -> list[Version]:
        """The versions that were written for one decision."""
        return [each for each in self.versions if each.op_id == op_id]
