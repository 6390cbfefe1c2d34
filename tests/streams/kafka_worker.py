"""A worker of Apache Kafka as a process of its own, for tests that kill it.

``bootstrap namespace partitions datadir web_port``
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from streams.app import Worker
from streams.settings import StreamSettings
from tests.streams.simple_agents import Notes


def main() -> None:
    bootstrap, namespace, partitions, datadir, web_port = sys.argv[1:]
    settings = StreamSettings.production(
        bootstrap, namespace=namespace, partitions=int(partitions), replication=1, sweep_interval_s=2.0
    )
    worker = Worker(settings, [Notes(answers=True)], datadir=Path(datadir), web_port=int(web_port))
    asyncio.run(worker.run_forever())


if __name__ == "__main__":
    main()
