"""The demo service: one version of it, as a process. ``python -m sentra.embedded.demo.service --help``.

``GET`` on any path is answered after a drawn latency, with three JSON log lines per request. ``PUT /__fault``
(body: :class:`~sentra.embedded.demo.behaviour.Fault`) changes how it behaves from now on, ``GET /__fault``
says who it is and how it behaves; both on direct connections only: who comes through the proxy gets 404.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path

import msgspec

from domain.clock import SystemClock
from sentra.embedded.demo.batched_file import BatchedFile
from sentra.embedded.demo.behaviour import HEALTHY, Answer, Behaviour, Fault
from sentra.embedded.demo.http1 import Message, take_message
from sentra.embedded.ports import HOST

FAULT_PATH = b"/__fault"
_SET_BY_PROXIES = b"x-forwarded-proto"


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What ``/__fault`` answers: who is there, and how it behaves."""

    pid: int
    version: str
    fault: Fault


class DemoService:
    """One version: its behaviour, its log, and a server that speaks for both."""

    def __init__(self, version: str, behaviour: Behaviour, log: BatchedFile) -> None:
        self.version = version
        self.behaviour = behaviour
        self._log = log
        self._clock = SystemClock()

    def log(self, message: str, bad: bool) -> None:
        """Write one line. Built by hand: this is most of what the process does."""
        level = "error" if bad else "info"
        self._log.write(
            f'{{"ts":{self._clock.now():.6f},"level":"{level}","version":"{self.version}","msg":"{message}"}}'
        )

    def control(self, request: Message) -> tuple[int, bytes]:
        """Answer on the control path: status code and JSON body."""
        if request.start_line.startswith(b"PUT "):
            try:
                self.behaviour.fault = msgspec.json.decode(request.body, type=Fault)
            except msgspec.DecodeError as exc:
                return 400, msgspec.json.encode({"error": str(exc)})
        return 200, msgspec.json.encode(
            Status(pid=os.getpid(), version=self.version, fault=self.behaviour.fault)
        )


class Conversation(asyncio.Protocol):
    """One connection. Requests on it are answered in order, as HTTP/1.1 wants."""

    def __init__(self, service: DemoService) -> None:
        self._service = service
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._is_answering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._take_next()

    def _take_next(self) -> None:
        if self._is_answering:
            return
        try:
            request = take_message(self._buffer)
        except ValueError:
            self._close()
            return
        if request is not None:
            self._is_answering = True
            self._begin(request)

    def _begin(self, request: Message) -> None:
        if request.start_line.split(b" ")[1:2] == [FAULT_PATH]:
            from_a_user = _SET_BY_PROXIES in request.headers
            self._write(*((404, b"{}") if from_a_user else self._service.control(request)))
            return
        answer = self._service.behaviour.next_answer()
        self._service.log("request received", answer.bad_lines[0])
        asyncio.get_running_loop().call_later(answer.latency_ms / 1000, self._finish, answer)

    def _finish(self, answer: Answer) -> None:
        self._service.log("work done", answer.bad_lines[1])
        self._service.log("answered 500" if answer.failed else "answered 200", answer.bad_lines[2])
        self._write(500 if answer.failed else 200, b'{"ok":false}' if answer.failed else b'{"ok":true}')

    def _write(self, status: int, body: bytes) -> None:
        head = (
            f"HTTP/1.1 {status} {'OK' if status == 200 else 'No'}\r\nx-version: {self._service.version}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(head.encode() + body)
        self._is_answering = False
        self._take_next()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def serve(version: str, port: int, log_path: Path, seed: int = 0, fault: Fault = HEALTHY) -> None:
    """Answer on ``port`` until SIGTERM."""
    loop = asyncio.get_running_loop()
    told_to_stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, told_to_stop.set)
    with BatchedFile(log_path) as log:
        service = DemoService(version, Behaviour(seed, version, fault), log)
        server = await loop.create_server(lambda: Conversation(service), HOST, port, backlog=1024)
        await told_to_stop.wait()
        server.close()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="sentra.embedded.demo.service", description="One demo version.")
    parser.add_argument("--version", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True, help="JSON lines are appended to this file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault", default="{}", help="JSON, as for PUT /__fault, in force from the start")
    asked = parser.parse_args()
    fault = msgspec.json.decode(asked.fault, type=Fault)
    asyncio.run(serve(asked.version, asked.port, asked.log, asked.seed, fault))


if __name__ == "__main__":
    main()
