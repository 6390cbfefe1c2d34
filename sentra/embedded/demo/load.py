"""The load generator as a process; how it sends is in ``users.py``, what it writes in ``request_log.py``.

``python -m sentra.embedded.demo.load --url http://127.0.0.1:8000 --rps 200 --out requests.jsonl``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import signal
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sentra.embedded.demo.batched_file import BatchedFile
from sentra.embedded.demo.request_log import read_requests, summarise
from sentra.embedded.demo.users import TIMEOUT_S, Stream, Users


async def send_load(url: str, streams: Sequence[Stream], out: Path, *, timeout_s: float = TIMEOUT_S) -> None:
    """Send until SIGTERM or SIGINT."""
    _raise_open_files_limit()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with BatchedFile(out) as log:
        await Users(url, log, timeout_s=timeout_s).run(streams, stop)


def main() -> None:
    """Read the command line, send until told to stop, print the totals."""
    parser = argparse.ArgumentParser(prog="sentra.embedded.demo.load", description="Open-loop load.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--rps", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True, help="one JSON array per request is appended here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--poisson", action="store_true", help="random gaps, drawn from --seed; even without")
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT_S, help="seconds until a request is given up"
    )
    parser.add_argument("--preview-header", default="x-canary=always", help="name=value")
    parser.add_argument("--preview-rps", type=float, default=0.0, help="more requests, with that header")
    asked = parser.parse_args()
    asyncio.run(send_load(asked.url, _streams(asked), asked.out, timeout_s=asked.timeout))
    print(json.dumps(asdict(summarise(read_requests(asked.out)))))


def _streams(asked: argparse.Namespace) -> list[Stream]:
    seed = asked.seed if asked.poisson else None
    streams = [Stream(rps=asked.rps, poisson_seed=seed)]
    if asked.preview_rps > 0:
        name, _, value = asked.preview_header.partition("=")
        preview_seed = None if seed is None else seed + 1
        streams.append(Stream(rps=asked.preview_rps, header=f"{name}: {value}", poisson_seed=preview_seed))
    return streams


def _raise_open_files_limit() -> None:
    """A silent service costs one connection per request until the time-out: 800 rps for 5 s are 4,000."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
