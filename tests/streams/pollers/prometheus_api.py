"""A small HTTP server that answers the two kinds of queries Sentra sends, from series it is given.

It is no Prometheus: it knows selectors, ranges and ``group by (le)``. What a real one answers is tested with
a real one; this one is for what real servers do rarely: fail, lie, hang, repeat themselves.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

Labels = Mapping[str, str]
_MATCHER = re.compile(r'([a-zA-Z_]\w*)(=~|!=|=)"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Question:
    """One request."""

    path: str
    headers: Labels
    form: Labels

    @property
    def query(self) -> str:
        return self.form.get("query", "")

    @property
    def is_range(self) -> bool:
        return self.query.endswith("ms]")


@dataclass(frozen=True, slots=True)
class Reply:
    """What to say instead of the truth."""

    body: str
    status: int = 200
    headers: Labels = field(default_factory=dict)


Script = Callable[[Question], Reply | None]
"""Decides about each question; ``None`` is the truth."""


class ApiServer:
    """Series by their labels, with samples; and what was asked."""

    def __init__(self) -> None:
        self.series: dict[tuple[tuple[str, str], ...], list[Any]] = {}
        self.questions: list[Question] = []
        self.script: Script = lambda question: None
        self.hangs = False
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ranges(self) -> list[str]:
        """The range queries so far."""
        return [each.query for each in self.questions if each.is_range]

    def scrape(self, at: float, name: str, value: Any, **labels: str) -> None:
        """One more sample of a series: a number, or a native histogram as the API writes it."""
        key = tuple(sorted({"__name__": name, "job": "pods", **labels}.items()))
        self.series.setdefault(key, []).append((at, value))

    def truth(self, question: Question) -> Reply:
        """The answer from the series."""
        query, at = question.query, float(question.form["time"])
        found = [
            (dict(labels), samples)
            for labels, samples in self.series.items()
            if _matches(query, dict(labels))
        ]
        if query.startswith("group by (le)"):
            edges = {labels["le"] for labels, _ in found if "le" in labels}
            return vector([({"le": edge}, (at, "1")) for edge in sorted(edges)])
        if query == "up == 0":
            return vector([(labels, (at, "0")) for labels, samples in found if samples[-1][1] == 0])
        if not question.is_range:
            return vector([(labels, (at, str(samples[-1][1]))) for labels, samples in found])
        window_s = int(query.rpartition("[")[2].removesuffix("ms]")) / 1000
        rows = []
        for labels, samples in found:
            within = [each for each in samples if at - window_s <= each[0] <= at]
            if within and isinstance(within[0][1], dict):
                rows.append({"metric": labels, "histograms": within})
            elif within:
                rows.append({"metric": labels, "values": [(moment, str(value)) for moment, value in within]})
        return success("matrix", rows)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question = await _read(reader)
            self.questions.append(question)
            if self.hangs:
                await reader.read()  # until the client goes away
            reply = self.script(question) or self.truth(question)
            writer.write(_bytes_of(reply))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def api(ssl_context: Any = None) -> AsyncIterator[ApiServer]:
    """A listening server."""
    told = ApiServer()
    server = await asyncio.start_server(told.serve, "127.0.0.1", 0, ssl=ssl_context)
    told.port = server.sockets[0].getsockname()[1]
    try:
        yield told
    finally:
        server.close()


def success(kind: str, rows: list[Any]) -> Reply:
    return Reply(json.dumps({"status": "success", "data": {"resultType": kind, "result": rows}}))


def vector(rows: list[tuple[Any, Any]]) -> Reply:
    return success("vector", [{"metric": labels, "value": value} for labels, value in rows])


def failure(status: int, kind: str, text: str, **headers: str) -> Reply:
    """An error as the API writes it."""
    body = json.dumps({"status": "error", "errorType": kind, "error": text})
    return Reply(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


def _matches(query: str, labels: Labels) -> bool:
    for name, operator, quoted in _MATCHER.findall(query):
        value = json.loads(f'"{quoted}"')
        if operator == "=~":
            is_met = re.fullmatch(value, labels.get(name, "")) is not None
        else:
            is_met = (labels.get(name, "") == value) == (operator == "=")
        if not is_met:
            return False
    return query != "up == 0" or labels["__name__"] == "up"


async def _read(reader: asyncio.StreamReader) -> Question:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    request, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
    return Question(request.split(" ")[1], headers, form)


def _bytes_of(reply: Reply) -> bytes:
    body = reply.body.encode()
    headers = {
        "Content-Type": "application/json",
        **reply.headers,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {reply.status} Said\r\n{head}\r\n".encode() + body
