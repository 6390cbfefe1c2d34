"""Real requests: the Online Boutique day of Nezha, its users' requests, its labelled faults.

Source: IntelligentDDS/Nezha (FSE 2023), MIT. Traps: some minutes are missing, traces of one minute's file
reach into the next, and only ``inject_time`` of a fault can be trusted.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.judging.cells import TICK_S, Floats

DAY = "2022-08-22"
"""Online Boutique. TrainTicket, the other day, has one request per second: 12 a minute for a canary."""
GAP_S = 5.0
"""A longer silence ends a stretch: a minute is missing."""
FAULT_S = 120.0
"""The most of a fault that is looked at, before and after."""
CALM_S = 240.0
"""Requests this long after a fault's injection are healthy again: faults were ended after three minutes."""
LEAST_STRETCH_S = 20.0
"""Shorter healthy stretches are left out."""

Bools = NDArray[np.bool_]
Keys = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Real requests in order of their start."""

    start_s: Floats
    """Seconds since the epoch, or since the segment began."""
    key: Keys
    """A hash of the trace."""
    ms: Floats

    def __len__(self) -> int:
        return len(self.start_s)

    def where(self, chosen: Bools) -> Requests:
        return Requests(start_s=self.start_s[chosen], key=self.key[chosen], ms=self.ms[chosen])

    def between(self, start_s: float, end_s: float) -> Requests:
        """Those that begin in [start, end), their times counted from ``start_s``."""
        found = self.where((self.start_s >= start_s) & (self.start_s < end_s))
        return Requests(start_s=found.start_s - start_s, key=found.key, ms=found.ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One labelled fault."""

    at_s: float
    """Seconds since the epoch."""
    kind: str
    pod: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """A day: users' requests, and for every pod with a fault its own spans."""

    root: Requests
    pods: Mapping[str, Requests]
    faults: tuple[Fault, ...]


def data_folder() -> Path | None:
    """Nezha's folder below ``SENTRA_DATA``; ``None`` when it is not set or the folder not there."""
    shared = os.environ.get("SENTRA_DATA")
    folder = Path(shared) / "nezha" / "rca_data" if shared else None
    return folder if folder is not None and folder.is_dir() else None


def load(folder: Path, day: str = DAY) -> Traces:
    """Read a day's faults and traces (some seconds)."""
    faults = load_faults(folder / day / f"{day}-fault_list.json")
    pods = {fault.pod for fault in faults}
    rows: dict[str, dict[str, tuple[float, int, float]]] = {name: {} for name in ("root", *pods)}
    for path in sorted((folder / day / "trace").glob("*_trace.csv.gz")):
        with gzip.open(path, "rt", newline="") as lines:
            table = csv.reader(lines)
            next(table)
            for trace, span, parent, pod, _operation, start_ns, _end_ns, micros in table:
                if parent != "root" and pod not in pods:
                    continue
                row = (int(start_ns) / 1e9, zlib.crc32(trace.encode()), int(micros) / 1e3)
                if parent == "root":
                    rows["root"][span] = row
                if pod in pods:
                    rows[pod][span] = row
    found = {name: _requests(list(spans.values())) for name, spans in rows.items()}
    return Traces(root=found.pop("root"), pods=found, faults=faults)


def load_faults(path: Path) -> tuple[Fault, ...]:
    """``inject_time`` is UTC; ``inject_timestamp`` is wrong on some days and not read."""
    hours: dict[str, list[dict[str, str]]] = json.loads(path.read_text())
    return tuple(
        Fault(
            at_s=datetime.strptime(entry["inject_time"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp(),
            kind=entry["inject_type"],
            pod=entry["inject_pod"],
        )
        for entries in hours.values()
        for entry in entries
    )


def _requests(rows: Sequence[tuple[float, int, float]]) -> Requests:
    ordered = sorted(rows)
    return Requests(
        start_s=np.array([row[0] for row in ordered]),
        key=np.array([row[1] for row in ordered], dtype=np.uint64),
        ms=np.array([row[2] for row in ordered]),
    )


def stretches(requests: Requests) -> list[tuple[float, float]]:
    """Stretches [first, last) without a gap, as seconds since the epoch."""
    if not len(requests):
        return []
    breaks = np.flatnonzero(np.diff(requests.start_s) > GAP_S)
    firsts = requests.start_s[np.concatenate(([0], breaks + 1))]
    lasts = requests.start_s[np.concatenate((breaks, [len(requests) - 1]))]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def around_fault(traces: Traces, fault: Fault) -> tuple[float, float, float] | None:
    """Where healthy requests begin, where faulty ones do, and how long both last: at most :data:`FAULT_S`.

    ``None`` when the minutes before or after the injection are missing or too short.
    """
    found = stretches(traces.root)
    calm = [each for each in _healthy_stretches(traces) if abs(each[1] - fault.at_s) < GAP_S]
    after = [
        (max(first, fault.at_s), last)
        for first, last in found
        if first - fault.at_s < GAP_S < last - fault.at_s
    ]
    if not calm or not after:
        return None
    (before_s, end_s), (after_s, last_s) = calm[-1], after[0]
    length = min(end_s - before_s, last_s - after_s, FAULT_S)
    return (end_s - length, after_s, length) if length >= LEAST_STRETCH_S else None


def healthy_stream(traces: Traces) -> Requests:
    """Users' requests before each fault, one stretch after the other, each of whole ticks; times from 0."""
    pieces: list[Requests] = []
    length = 0.0
    for first, last in _healthy_stretches(traces):
        whole = np.floor((last - first) / TICK_S) * TICK_S
        piece = traces.root.between(first, first + whole)
        pieces.append(Requests(start_s=piece.start_s + length, key=piece.key, ms=piece.ms))
        length += whole
    return Requests(
        start_s=np.concatenate([piece.start_s for piece in pieces]),
        key=np.concatenate([piece.key for piece in pieces]),
        ms=np.concatenate([piece.ms for piece in pieces]),
    )


def _healthy_stretches(traces: Traces) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for first, last in stretches(traces.root):
        coming = [fault.at_s for fault in traces.faults if fault.at_s > first]
        past = [fault.at_s for fault in traces.faults if fault.at_s <= first]
        is_calm = not past or first - max(past) > CALM_S
        end = min([last, *coming])
        if is_calm and end - first >= LEAST_STRETCH_S:
            found.append((first, end))
    return found
