"""The wire carries bytes both ways, holds them back when cut, and delivers them when healed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sentra.embedded.demo.relay import TcpRelay
from sentra.embedded.ports import HOST, free_port
from tests.sentra.embedded.waiting import listening

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1024):
        writer.write(data)


@pytest.fixture
async def relay() -> AsyncIterator[TcpRelay]:
    async with listening(echo) as target, TcpRelay(free_port(), target) as relay:
        yield relay


async def say(wire: Wire, text: bytes) -> bytes:
    wire[1].write(text)
    return await asyncio.wait_for(wire[0].readexactly(len(text)), 5.0)


async def hears_nothing(wire: Wire) -> bool:
    try:
        await asyncio.wait_for(wire[0].read(1), 0.2)
    except TimeoutError:
        return True
    return False


async def test_bytes_flow_both_ways_until_one_side_ends(relay: TcpRelay) -> None:
    wire = await asyncio.open_connection(HOST, relay.port)
    assert await say(wire, b"hello") == b"hello"
    wire[1].write_eof()
    assert await asyncio.wait_for(wire[0].read(), 5.0) == b""
    wire[1].close()


async def test_a_cut_wire_accepts_and_says_nothing_on_old_and_new_connections(relay: TcpRelay) -> None:
    old = await asyncio.open_connection(HOST, relay.port)
    assert await say(old, b"before") == b"before"
    relay.black_hole()
    assert relay.is_black_hole
    new = await asyncio.open_connection(HOST, relay.port)
    for wire in (old, new):
        wire[1].write(b"during")
    assert await hears_nothing(old)
    assert await hears_nothing(new)
    relay.heal()
    for wire in (old, new):
        assert await asyncio.wait_for(wire[0].readexactly(6), 5.0) == b"during"
        assert await say(wire, b"after") == b"after"
        wire[1].close()


async def test_closing_ends_connections_that_hang(relay: TcpRelay) -> None:
    relay.black_hole()
    wire = await asyncio.open_connection(HOST, relay.port)
    wire[1].write(b"anybody?")
    assert await hears_nothing(wire)
    await relay.close()
    assert await asyncio.wait_for(wire[0].read(), 5.0) == b""
    wire[1].close()
    with pytest.raises(OSError):
        await asyncio.open_connection(HOST, relay.port)


async def test_a_dead_target_closes_the_connection() -> None:
    async with TcpRelay(free_port(), free_port()) as relay:
        wire = await asyncio.open_connection(HOST, relay.port)
        assert await asyncio.wait_for(wire[0].read(), 5.0) == b""
        wire[1].close()
