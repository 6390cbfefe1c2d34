"""Apache Kafka as a test server: one KRaft node from the published jars, on free ports of 127.0.0.1.

Maven resolves the jars once into a cache folder outside the tree (``$XDG_CACHE_HOME``). Without Java or
Maven the tests that need Kafka are skipped with that reason; under ``CI=true`` they fail instead.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from sentra.embedded.ports import HOST, free_ports
from sentra.embedded.processes import Child, port_answers
from streams.settings import StreamSettings

VERSION = "4.2.0"
HEAP = "-Xmx512m"

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>sentra.test</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""

_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
auto.create.topics.enable=false
# Production keeps the default of 3 s; a test that starts one worker need not wait for more of them.
group.initial.rebalance.delay.ms=0
"""

_LOG_LEVEL = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"


@asynccontextmanager
async def running_kafka(folder: Path, *, partitions: int = 4) -> AsyncIterator[StreamSettings]:
    """An empty Kafka and the settings to reach it, those of production but for what one node cannot have."""
    java, jars = _program("java"), _jars()
    port, controller = free_ports(2)
    folder.mkdir(parents=True, exist_ok=True)
    properties = folder / "server.properties"
    properties.write_text(_PROPERTIES.format(host=HOST, port=port, controller=controller, folder=folder))
    command = [java, HEAP, _LOG_LEVEL, "-cp", f"{jars}/*"]
    cluster = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    await _succeed([*command, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)])
    server = Child("Kafka", [*command, "kafka.Kafka", properties], log_path=folder / "kafka.log")
    server.start()
    try:
        await server.wait_until_ready(lambda: _answers(port), 60.0)
        yield StreamSettings.production(
            f"{HOST}:{port}", partitions=partitions, replication=1, declare_topics=True
        )
    finally:
        await server.stop(15.0)


async def _answers(port: int) -> bool:
    """Whether the broker is registered: before that its port is open, but it knows of no broker."""
    # Look before knocking: the Kafka client logs an error for each refused connection.
    if not await port_answers(HOST, port):
        return False
    client = AIOKafkaClient(bootstrap_servers=f"{HOST}:{port}")
    try:
        await client.bootstrap()
        return bool(client.cluster.brokers())
    except KafkaError:
        return False
    finally:
        await client.close()


async def _succeed(command: Sequence[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


def _jars() -> Path:
    """The folder of Kafka's jars, filled at the first call."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jars = cache / "sentra-test-servers" / f"kafka-{VERSION}"
    if jars.is_dir():
        return jars
    # Filled under another name first: a folder with the right name is whole.
    fresh = jars.with_name(f"{jars.name}.{os.getpid()}")
    fresh.mkdir(parents=True)
    (fresh / "pom.xml").write_text(_POM.format(version=VERSION))
    maven = [_program("mvn"), "-q", "-B", "-f", str(fresh / "pom.xml"), "dependency:copy-dependencies"]
    done = subprocess.run(
        [*maven, "-DincludeScope=runtime", f"-DoutputDirectory={fresh}"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        shutil.rmtree(fresh)
        _missing(f"Maven could not resolve Kafka {VERSION}: {done.stdout[-500:]}")
    try:
        fresh.rename(jars)
    except OSError:  # another test run was quicker
        shutil.rmtree(fresh)
    return jars


def _program(name: str) -> str:
    return shutil.which(name) or _missing(f"needs {name} on PATH")


def _missing(reason: str) -> str:
    """Skip, or fail where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"Apache Kafka: {reason}")
    pytest.skip(f"Apache Kafka: {reason}")
