"""Open-loop sending: every request is written down once, whatever the other side does."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import islice, pairwise
from pathlib import Path

import pytest

from sentra.embedded.demo.batched_file import BatchedFile
from sentra.embedded.demo.request_log import Request, read_requests
from sentra.embedded.demo.users import Stream, Users
from sentra.embedded.ports import HOST, free_port
from tests.sentra.embedded.waiting import Talk, eventually, listening, reply_to_each

OK = b"HTTP/1.1 200 OK\r\nx-version: v1\r\ncontent-length: 0\r\n\r\n"


def replying(reply: bytes, seen: list[bytes] | None = None) -> Talk:
    """A server that answers each request with ``reply``."""
    return partial(reply_to_each, reply=reply, seen=seen)


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def local(port: int) -> str:
    return f"http://{HOST}:{port}"


async def sent_to(
    url: str, tmp_path: Path, *streams: Stream, at_least: int, timeout_s: float = 5.0
) -> list[Request]:
    """Send until ``at_least`` requests have ended and then stop."""
    path, stop = tmp_path / "requests.jsonl", asyncio.Event()
    with BatchedFile(path) as log:
        users = Users(url, log, timeout_s=timeout_s)
        running = asyncio.create_task(users.run(streams, stop))
        await eventually(lambda: sum(1 for _ in read_requests(path)) >= at_least)
        stop.set()
        await running
    return list(read_requests(path))


async def test_answers_are_written_down_with_who_gave_them(tmp_path: Path) -> None:
    async with listening(replying(OK)) as port:
        rows = await sent_to(local(port), tmp_path, Stream(rps=200), at_least=20)
    assert {(row.status, row.version, row.preview) for row in rows} == {(200, "v1", False)}
    assert all(row.due <= row.sent <= row.ended for row in rows)


async def test_requests_are_due_at_equal_gaps(tmp_path: Path) -> None:
    async with listening(replying(OK)) as port:
        rows = await sent_to(local(port), tmp_path, Stream(rps=200), at_least=20)
    due = sorted(row.due for row in rows)
    assert [later - earlier for earlier, later in pairwise(due)] == pytest.approx(
        [0.005] * (len(due) - 1), abs=0.0002
    )


async def test_whom_the_proxy_chose_counts_when_the_service_is_dead(tmp_path: Path) -> None:
    reply = b"HTTP/1.1 503 No\r\nx-sentra-version: v2\r\ncontent-length: 2\r\n\r\nno"
    async with listening(replying(reply)) as port:
        rows = await sent_to(local(port), tmp_path, Stream(rps=100), at_least=5)
    assert {(row.status, row.version) for row in rows} == {(503, "v2")}


async def test_preview_users_send_their_header(tmp_path: Path) -> None:
    seen: list[bytes] = []
    streams = [Stream(rps=100), Stream(rps=50, header="x-canary: always")]
    async with listening(replying(OK, seen)) as port:
        rows = await sent_to(local(port), tmp_path, *streams, at_least=30)
    marked = sum(b"\r\nx-canary: always\r\n" in head for head in seen)
    assert marked == sum(row.preview for row in rows)
    assert 0 < marked < len(rows)


async def test_a_broken_connection_is_a_reset_and_no_retry(tmp_path: Path) -> None:
    async with listening(hang_up) as port:
        rows = await sent_to(local(port), tmp_path, Stream(rps=100), at_least=10)
    assert {row.status for row in rows} == {0}


async def test_nobody_listening_is_a_reset(tmp_path: Path) -> None:
    rows = await sent_to(local(free_port()), tmp_path, Stream(rps=100), at_least=10)
    assert {(row.status, row.version) for row in rows} == {(0, "")}


async def test_silence_does_not_slow_the_schedule_and_ends_in_time_outs(tmp_path: Path) -> None:
    async with listening(stay_silent) as port:
        rows = await sent_to(local(port), tmp_path, Stream(rps=100), at_least=30, timeout_s=0.3)
    assert {row.status for row in rows} == {-1}
    due = [row.due for row in rows]
    assert max(due) - min(due) == pytest.approx((len(rows) - 1) / 100, abs=0.001)


async def test_an_answer_that_is_no_http_is_a_reset(tmp_path: Path) -> None:
    async with listening(replying(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n")) as port:
        rows = await sent_to(local(port), tmp_path, Stream(rps=100), at_least=5)
    assert {row.status for row in rows} == {0}


async def test_a_connection_the_server_means_to_close_is_not_used_again(tmp_path: Path) -> None:
    reply = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    async with listening(replying(reply)) as port:
        rows = await sent_to(local(port), tmp_path, Stream(rps=100), at_least=10)
    assert {row.status for row in rows} == {200}


def test_one_seed_gives_one_poisson_schedule_at_the_rate_asked_for() -> None:
    first = list(islice(Stream(rps=200, poisson_seed=1).offsets(), 10_000))
    assert first == list(islice(Stream(rps=200, poisson_seed=1).offsets(), 10_000))
    assert first != list(islice(Stream(rps=200, poisson_seed=2).offsets(), 10_000))
    assert first[-1] == pytest.approx(50.0, rel=0.05)
