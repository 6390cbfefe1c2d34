"""One arrangement of processes to measure: where its broker, folder and orders are. Read by every child."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sentra.config import Settings
from streams.settings import StreamSettings

_TICK_HZ = os.sysconf("SC_CLK_TCK")


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a run; travels to its children as a JSON file."""

    folder: Path
    bootstrap: str
    partitions: int = 4
    per_sample: bool = False
    """Whether the generator publishes one record per sample instead of frames."""

    @property
    def ready_path(self) -> Path:
        """Made by the worker when it is ready."""
        return self.folder / "ready"

    @property
    def orders_path(self) -> Path:
        """What the generator is to do: ``{"rollouts": 1000, "failures": 0}``."""
        return self.folder / "load.json"

    @property
    def settings_path(self) -> Path:
        return self.folder / "run.json"

    def settings(self) -> Settings:
        """As a worker of the embedded stack has them."""
        return Settings(
            state_dir=self.folder,
            bootstrap=self.bootstrap,
            partitions=self.partitions,
            broker_epoch="bench",
        )

    def stream(self) -> StreamSettings:
        return self.settings().stream()

    def order(self, rollouts: int, failures: int = 0) -> None:
        """Tell the generator, who looks once a tick."""
        content = msgspec.json.encode({"rollouts": rollouts, "failures": failures})
        fresh = self.orders_path.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.replace(self.orders_path)

    def write(self) -> None:
        self.settings_path.write_bytes(msgspec.json.encode(self, enc_hook=str))


def read_run(path: Path) -> Run:
    """The run whose settings are in ``path``."""
    return msgspec.json.decode(path.read_bytes(), type=Run, dec_hook=lambda kind, value: kind(value))


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used so far."""

    cpu_s: float
    peak_rss_mb: float


def usage_of(pid: int) -> Usage:
    """CPU seconds of all threads (resolution 10 ms) and peak resident memory of a process. Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # After the name: field 14 of stat(5) is user time, 15 system time, in clock ticks.
    ticks = int(fields[11]) + int(fields[12])
    status = Path(f"/proc/{pid}/status").read_text()
    peak_kb = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return Usage(ticks / _TICK_HZ, int(peak_kb) / 1024)
