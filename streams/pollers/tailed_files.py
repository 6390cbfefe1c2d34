"""Files that grow, rotate and are cut short, as a sequence of whole lines. Blocking: call it in a thread."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from typing import BinaryIO

READ_BYTES = 16 * 1024 * 1024
"""Per file and tick; what is beyond is read in the next tick."""

LINE_BYTES = 1024 * 1024
"""A longer line without an end is dropped: it is no log line."""


class TailedFiles:
    """The open files, read from where they ended when they were first seen.

    A file that another one replaced is read to its end first; a file that was cut short is read from its
    beginning; one that appears later was written after we came, so it is read from its beginning too.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self._open: dict[str, _OpenFile] = {}
        self._is_first = True

    def read(self) -> tuple[list[bytes], list[str]]:
        """The complete new lines of all files, and the patterns that match no file. Blocks."""
        found = {pattern: self._matches(pattern) for pattern in self._patterns}
        paths = dict.fromkeys(path for matches in found.values() for path in matches)
        lines: list[bytes] = []
        for path in [path for path in self._open if path not in paths]:
            lines += self._drop(path)
        for path in paths:
            lines += self._read_one(path)
        self._is_first = False
        return lines, [pattern for pattern, matches in found.items() if not matches]

    def skip(self) -> None:
        """Begin anew at the present end of every file."""
        self.close()
        self._is_first = True

    def close(self) -> None:
        for each in self._open.values():
            each.file.close()
        self._open.clear()

    def _matches(self, pattern: str) -> list[str]:
        if glob.has_magic(pattern):
            return sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
        return [pattern] if os.path.isfile(pattern) else []

    def _read_one(self, path: str) -> Iterable[bytes]:
        lines: list[bytes] = []
        opened = self._open.get(path)
        if opened is not None and opened.was_replaced():
            lines += self._drop(path)
            opened = None
        if opened is None:
            try:
                opened = self._open[path] = _OpenFile(path, at_end=self._is_first)
            except OSError:
                return lines  # it vanished between the look and the open; the next tick says so
        return lines + opened.lines()

    def _drop(self, path: str) -> list[bytes]:
        """The rest of a file that is no longer there under its name."""
        opened = self._open.pop(path)
        lines = opened.last_lines()
        opened.file.close()
        return lines


class _OpenFile:
    """One file and what was read of its last, unfinished line."""

    def __init__(self, path: str, *, at_end: bool) -> None:
        self.file: BinaryIO = open(path, "rb")  # noqa: SIM115 - it stays open from tick to tick
        self._path = path
        self._rest = b""
        if at_end:
            self.file.seek(0, os.SEEK_END)

    def was_replaced(self) -> bool:
        """Whether the path names another file by now."""
        try:
            there, here = os.stat(self._path), os.fstat(self.file.fileno())
        except OSError:
            return True
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def lines(self) -> list[bytes]:
        """The complete lines written since; the beginning of a half-written one is kept for later."""
        if os.fstat(self.file.fileno()).st_size < self.file.tell():
            self.file.seek(0)
            self._rest = b""
        data = self._rest + self.file.read(READ_BYTES)
        whole, end, self._rest = data.rpartition(b"\n")
        if len(self._rest) > LINE_BYTES:
            self._rest = b""
        return [line for line in whole.split(b"\n") if line.strip()] if end else []

    def last_lines(self) -> list[bytes]:
        """Everything that is left; nobody will finish an unfinished line any more."""
        lines: list[bytes] = []
        while more := self.lines():
            lines += more
        return [*lines, self._rest] if self._rest.strip() else lines
