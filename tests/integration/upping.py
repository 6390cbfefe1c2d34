"""``sentra up`` as a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from sentra.embedded.processes import Child
from sentra.embedded.running import Running, find


class Up:
    """``sentra up`` in ``folder``, with settings of our own."""

    def __init__(self, folder: Path, *, sources: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.state_dir = folder / ".sentra"
        self.child: Child | None = None
        (folder / "sentra.yaml").write_text(yaml.safe_dump({"sources": sources or {}}))

    @property
    def pid(self) -> int:
        assert self.child is not None and self.child.pid is not None
        return self.child.pid

    async def start(self) -> Running:
        """Start it and wait until it says that it runs."""
        argv = [sys.executable, "-m", "sentra.cli.main", "up"]
        self.child = Child("sentra up", argv, log_path=self.folder / "up.log", cwd=self.folder)
        self.child.start()
        await self.child.wait_until_ready(self._announces_itself, 60.0)
        found = find(self.state_dir)
        assert found is not None
        return found

    def kill(self) -> None:
        """kill -9."""
        assert self.child is not None
        self.child.kill()

    async def stop(self) -> None:
        """Ask it to end; safe to repeat."""
        if self.child is not None:
            await self.child.stop(grace_s=20.0)

    async def _announces_itself(self) -> bool:
        found = find(self.state_dir)
        return found is not None and found.pid == self.pid
