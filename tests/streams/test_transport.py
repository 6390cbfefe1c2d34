"""The changed behaviours of Faust's driver that can be seen without a broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from streams import transport
from streams.app import make_app
from streams.settings import StreamSettings


@pytest.fixture
def app(tmp_path: Path) -> Iterator[transport.App]:
    settings = StreamSettings.embedded("127.0.0.1:9", fetch_max_wait_ms=37)
    made = make_app("test-group", settings, datadir=tmp_path / "data", web_port=6066)
    yield made
    made.consumer._thread.thread_loop.close()  # made for a thread that was never started


def a_message(offset: int) -> ConsumerMessage:
    return ConsumerMessage("t", 0, offset, 0.0, 0, [], None, b"", None, tp=TP("t", 0))


async def test_the_scheme_leads_faust_to_our_driver(app: transport.App) -> None:
    assert type(app.transport) is transport.Transport


async def test_the_consumer_deals_ranges_and_waits_as_told(app: transport.App) -> None:
    consumer = app.consumer._thread._create_worker_consumer(app.transport)
    assert consumer._partition_assignment_strategy == [RangePartitionAssignor]
    assert consumer._fetch_max_wait_ms == 37
    assert consumer._group_id == "test-group"
    await consumer.stop()


async def test_what_faust_acknowledges_is_not_what_is_committed(app: transport.App) -> None:
    for offset in range(5):
        app.consumer.ack(a_message(offset))
    assert app.consumer._filter_committable_offsets([TP("t", 0)]) == {}
    app.progress = lambda: {("t", 0): 3}
    assert app.consumer._filter_committable_offsets([]) == {TP("t", 0): 3}


async def test_an_offset_is_committed_only_forwards(app: transport.App) -> None:
    app.consumer._committed_offset[TP("t", 0)] = 10
    app.progress = lambda: {("t", 0): 10}
    assert app.consumer._filter_committable_offsets([]) == {}


async def test_faust_writes_only_below_the_given_directory(app: transport.App, tmp_path: Path) -> None:
    assert app.conf.datadir == tmp_path / "data" / "test-group"
