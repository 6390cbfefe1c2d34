"""A text file that many small lines go to: written in batches, by one asyncio loop."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType

FLUSH_S = 0.1
"""The most that a killed process loses, and the most that a reader is behind."""


class BatchedFile:
    """Appends whole lines; a reader sees each within :data:`FLUSH_S`. To be used inside a running loop."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8", buffering=1 << 20)
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def write(self, line: str) -> None:
        """Add ``line``, which holds no line break."""
        self._lines.append(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)

    def close(self) -> None:
        """Write what is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._flush()
        self._file.close()

    def __enter__(self) -> BatchedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _flush(self) -> None:
        self._timer = None
        self._file.write("\n".join(self._lines) + "\n")
        self._file.flush()
        self._lines.clear()
