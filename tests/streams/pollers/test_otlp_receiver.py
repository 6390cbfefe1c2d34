"""The OTLP receiver over real HTTP: what is taken, and a clear answer to everything else."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from domain.clock import SystemClock
from domain.errors import ConfigError, SourceRejected, SourceUnavailable
from domain.signal import Arm, Channel
from sentra.embedded.ports import free_ports
from streams.pollers import otlp_receiver
from streams.pollers.base import target_of
from streams.pollers.otlp import OtlpSource
from streams.pollers.otlp_config import OtlpSettings
from streams.pollers.registry import open_sources, read_sources
from tests.streams.pollers.otlp_requests import JSON, PROTOBUF, json_of, logs, metrics, point, spans
from tests.streams.pollers.rollouts import gate, spec

TARGET = target_of(spec(gates=(gate("error_rate"),)), Channel.METRICS)
HEADERS = {"Content-Type": PROTOBUF}


def source(name: str = "otlp", clock: SystemClock | None = None, **options: Any) -> OtlpSource:
    given = {"kind": "otlp", "carries": "metrics", "listen": "127.0.0.1:0", **options}
    return OtlpSource(name, OtlpSettings.read(name, given), clock or SystemClock())


class Scene:
    """A listening source and a client."""

    def __init__(self, source: OtlpSource, client: httpx.AsyncClient) -> None:
        self.source = source
        self.client = client
        self.ends = 0.0

    async def counted(self) -> float:
        """Requests of the canary that arrived since the last call."""
        self.ends = max(self.ends + 1.0, float(int(SystemClock().now()) + 1))
        fetched = await self.source.fetch([TARGET], self.ends, 1.0)
        return sum(each.exposure for each in fetched.samples if each.arm is Arm.CANARY)

    async def post(self, body: Any, path: str = "/v1/metrics", **headers: str) -> httpx.Response:
        return await self.client.post(path, content=body, headers={**HEADERS, **_dashed(headers)})


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@asynccontextmanager
async def listening(verify: Any = True, cert: Any = None, **options: Any) -> AsyncIterator[Scene]:
    of = source(**options)
    await of.fetch([TARGET], float(int(SystemClock().now())), 1.0)
    scheme = "https" if options.get("cert_file") else "http"
    url = (
        f"{scheme}://localhost:{of.receiver.port}"
        if cert or scheme == "https"
        else f"http://127.0.0.1:{of.receiver.port}"
    )
    try:
        async with httpx.AsyncClient(base_url=url, verify=verify, cert=cert, trust_env=False) as client:
            yield Scene(of, client)
    finally:
        await of.close()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with listening() as scene:
        yield scene


def request(count: int = 5, **given: Any) -> Any:
    now = SystemClock().now()
    return metrics(point(now - 0.2, now, (count, 0, 0, 0)), **given)


async def test_protobuf_json_and_gzip_are_taken_and_answered_in_kind(scene: Scene) -> None:
    answer = await scene.post(request(5).SerializeToString())
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, PROTOBUF, b"")
    packed = gzip.compress(json_of(request(6)))
    answer = await scene.post(packed, Content_Type=f"{JSON}; charset=utf-8", Content_Encoding="gzip")
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["content-type"].startswith(JSON)
    assert await scene.counted() == 11.0


async def test_what_is_refused_of_a_request_is_told_as_partial_success(scene: Scene) -> None:
    mixed = request(5)
    mixed.MergeFrom(request(7, resource={"service.name": "checkout"}))
    answer = ExportMetricsServiceResponse.FromString((await scene.post(mixed.SerializeToString())).content)
    assert answer.partial_success.rejected_data_points == 1
    assert "without service.name and service.version" in answer.partial_success.error_message
    told = (await scene.post(json_of(request(7, unit="days")), Content_Type=JSON)).json()["partialSuccess"]
    assert (told["rejectedDataPoints"], "has the unit 'days'" in told["errorMessage"]) == ("1", True)
    assert await scene.counted() == 5.0


async def test_a_request_sent_again_counts_once_and_its_sender_is_told_that_all_is_well(scene: Scene) -> None:
    body = request(5).SerializeToString()
    await scene.post(body)
    answer = await scene.post(body)
    told = ExportMetricsServiceResponse.FromString(answer.content).partial_success
    assert (answer.status_code, told.rejected_data_points) == (200, 0)
    assert told.error_message == "this request was sent again; it counts once"
    assert await scene.counted() == 5.0


BOMB = gzip.compress(bytes(64 * 1024 * 1024))
WHOLE = gzip.compress(request(5).SerializeToString())
ANSWERS: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "too large": (bytes(5 * 1024 * 1024), {}, 413, "at most 4194304 are taken"),
    "a bomb": (BOMB, {"Content_Encoding": "gzip"}, 413, "more than 16777216 bytes when decompressed"),
    "many members": (gzip.compress(b"") * 9999, {"Content_Encoding": "gzip"}, 413, "gzip members"),
    "no gzip": (b"gzip, really", {"Content_Encoding": "gzip"}, 400, "is not gzip"),
    "cut gzip": (WHOLE[:-9], {"Content_Encoding": "gzip"}, 400, "gzip that was cut off"),
    "other compression": (b"x", {"Content_Encoding": "br"}, 415, "by gzip, not by br"),
    "cut protobuf": (request(5).SerializeToString()[:-3], {}, 400, "in protobuf, or cut off"),
    "no json": (b"[1, 2", {"Content_Type": JSON}, 400, "in JSON"),
    "json of other types": (b'{"resourceMetrics": 5}', {"Content_Type": JSON}, 400, "in JSON"),
    "deep json": (b'{"a":' * 100_000, {"Content_Type": JSON}, 400, "in JSON"),
    "a wrong type": (b"x", {"Content_Type": "text/plain"}, 415, "send application/x-protobuf"),
}


@pytest.mark.parametrize("body, headers, status, words", ANSWERS.values(), ids=ANSWERS)
async def test_what_cannot_be_taken_is_answered_clearly_and_others_go_on(
    scene: Scene, body: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    answer = await scene.post(body, **headers)
    assert answer.status_code == status
    assert words in answer.text
    if answer.headers["content-type"].startswith(JSON):
        assert words in json.loads(answer.content)["message"]
    assert (await scene.post(request(5).SerializeToString())).status_code == 200
    assert await scene.counted() == 5.0


async def said_to(port: int, *pieces: bytes) -> str:
    """The answer to a body whose end never comes, in chunks."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = ("POST /v1/metrics HTTP/1.1", "Host: x", f"Content-Type: {PROTOBUF}", "Transfer-Encoding: chunked")
    writer.write("\r\n".join([*head, "", ""]).encode())
    for piece in pieces:
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    try:
        return (await reader.read(2000)).decode()
    finally:
        writer.close()


async def test_a_body_of_unknown_length_is_cut_off_at_the_limit(scene: Scene) -> None:
    answer = await said_to(scene.source.receiver.port, *[bytes(65_536)] * 65)
    assert answer.startswith("HTTP/1.1 413 ")
    assert "more than 4194304 bytes" in answer


@pytest.mark.parametrize("method, path, status", [("GET", "/v1/metrics", 405), ("POST", "/v1/profiles", 404)])
async def test_other_paths_and_methods_are_not_there(
    scene: Scene, method: str, path: str, status: int
) -> None:
    assert (await scene.client.request(method, path)).status_code == status


async def test_when_too_much_comes_at_once_senders_are_asked_to_come_again() -> None:
    async with listening(max_body_bytes=100_000, max_waiting_bytes=100_000) as scene:
        go_on = asyncio.Event()
        body = request(5).SerializeToString()

        async def slow() -> AsyncIterator[bytes]:
            yield body[:10]
            await go_on.wait()
            yield body[10:]

        first = asyncio.create_task(scene.post(slow()))
        for _ in range(300):  # until the first one is being received
            answer = await scene.post(request(6).SerializeToString())
            if answer.status_code != 200:
                break
            await asyncio.sleep(0.01)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        go_on.set()
        assert (await first).status_code == 200
        assert (await scene.post(request(7).SerializeToString())).status_code == 200


async def test_a_body_that_does_not_come_is_given_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_receiver, "BODY_S", 0.2)

    answer = await said_to(scene.source.receiver.port, b"x")
    assert answer.startswith("HTTP/1.1 408 ")
    assert "did not come within" in answer


async def test_only_who_has_the_token_may_send(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    async with listening(token_file=str(token)) as scene:
        body = request(5).SerializeToString()
        for wrong in ({}, {"Authorization": "Bearer other"}, {"Authorization": "s3cret"}):
            answer = await scene.post(body, **wrong)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert (await scene.post(body, Authorization="Bearer s3cret")).status_code == 200
        token.write_text("renewed")
        assert (await scene.post(body, Authorization="Bearer s3cret")).status_code == 401
        assert (await scene.post(body, Authorization="Bearer renewed")).status_code == 200
        token.write_text("")
        assert (await scene.post(body, Authorization="Bearer")).status_code == 401
        token.unlink()
        answer = await scene.post(body, Authorization="Bearer renewed")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        with pytest.raises(SourceRejected, match="token_file is not there"):
            await scene.counted()


def _certificates(folder: Path) -> Callable[[str], str]:
    """An authority, a receiver's and a sender's certificate by openssl."""

    def run(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority", "-days", "2")
    for name in ("server", "client"):
        (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        run("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        run(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2"),
            *("-CAcreateserial", "-extfile", "names", "-out", f"{name}.pem"),
        )
    return lambda name: str(folder / name)


async def test_senders_are_known_by_their_certificates(tmp_path: Path) -> None:
    of = _certificates(tmp_path)
    known = ssl.create_default_context(cafile=of("ca.pem"))
    known.load_cert_chain(of("client.pem"), of("client.key"))
    files = {"cert_file": of("server.pem"), "key_file": of("server.key")}
    async with listening(verify=known, client_ca_file=of("ca.pem"), **files) as scene:
        assert (await scene.post(request(5).SerializeToString())).status_code == 200
        stranger = ssl.create_default_context(cafile=of("ca.pem"))
        async with httpx.AsyncClient(base_url=scene.client.base_url, verify=stranger) as client:
            with pytest.raises(httpx.HTTPError):
                await client.post("/v1/metrics", content=b"", headers=HEADERS)
        assert await scene.counted() == 5.0


async def test_certificates_that_cannot_be_used_are_told() -> None:
    of = source(cert_file="/nowhere/cert.pem", key_file="/nowhere/key.pem")
    with pytest.raises(SourceRejected, match="cannot use cert_file"):
        await of.fetch([TARGET], 1.0, 1.0)


async def test_a_port_that_is_taken_is_tried_again() -> None:
    [port] = free_ports(1)
    other = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", port)
    of = source(listen=f"127.0.0.1:{port}")
    with pytest.raises(SourceUnavailable, match="cannot listen on 127"):
        await of.fetch([TARGET], 1.0, 1.0)
    other.close()
    await other.wait_closed()
    assert (await of.fetch([TARGET], 2.0, 1.0)).end == 2.0
    await of.close()


async def test_sources_on_one_address_share_a_receiver_until_the_last_one_closes() -> None:
    [port] = free_ports(1)
    kinds = {
        each: {"kind": "otlp", "carries": each, "listen": f"127.0.0.1:{port}"}
        for each in ("metrics", "logs", "traces")
    }
    sources = open_sources(read_sources(kinds), SystemClock())
    gates = (gate("error_rate"), gate("log_error_ratio"), gate("trace_error_ratio"))
    now = SystemClock().now()
    bodies = {
        "metrics": request(3),
        "logs": logs((now, 17), (now, 9)),
        "traces": spans((now, 2, 2), (now, 2, 0), (now, 2, 0), (now, 2, 1)),
    }

    async def counted(name: str, end: float) -> tuple[float, float]:
        target = target_of(spec(gates=gates), Channel(name))
        rows = (await sources[name].fetch([target], end, 1.0)).samples
        return sum(each.events for each in rows), sum(each.exposure for each in rows)

    end = float(int(now) + 1)
    for name in sources:
        await counted(name, end - 1)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        for name, body in bodies.items():
            answer = await client.post(f"/v1/{name}", content=body.SerializeToString(), headers=HEADERS)
            assert answer.status_code == 200
        found = {name: await counted(name, end + 1) for name in sources}
        assert found == {"metrics": (0.0, 3.0), "logs": (1.0, 2.0), "traces": (1.0, 4.0)}
        await sources["metrics"].close()
        await sources["logs"].close()
        again = await client.post("/v1/traces", content=b"", headers=HEADERS)
        assert again.status_code == 200
        await sources["traces"].close()
        with pytest.raises(httpx.HTTPError):
            await client.post("/v1/traces", content=b"", headers=HEADERS)


async def test_sources_on_one_address_must_agree_about_it() -> None:
    [port] = free_ports(1)
    first = source("one", listen=f"127.0.0.1:{port}")
    with pytest.raises(
        ConfigError, match=r"sources.two.max_series: sources that listen on 127.0.0.1:\d+ must"
    ):
        source("two", listen=f"127.0.0.1:{port}", max_series=5)
    await first.close()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"listen": "0.0.0.0:4318"}, "needs token_file or client_ca_file"),
        ({"listen": "4318"}, "listen is address:port"),
        ({"cert_file": "x"}, "cert_file and key_file go together"),
        ({"client_ca_file": "x"}, "client_ca_file needs cert_file"),
        ({"carries": "profiles"}, "carries"),
        ({"requests": "x"}, "go together"),
        ({"version": "{nope}"}, "a template may use"),
        ({"error_values": "("}, "not a regular expression"),
        ({"max_waiting_bytes": 1}, "max_waiting_bytes must hold"),
        ({"service_attribute": ""}, "must name attributes"),
    ],
)
def test_settings_that_break_a_rule_are_refused_by_name(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        source(**options)
