"""Who we say we are: each kind of proof against a real server, and no secret in anything that is said."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import logging
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from domain.clock import ManualClock
from domain.errors import SourceError, SourceRejected, SourceUnavailable
from domain.signal import Channel
from streams.pollers.base import target_of
from streams.pollers.prometheus import PrometheusSource
from streams.pollers.prometheus_settings import PrometheusSettings
from tests.streams.pollers.prometheus_api import ApiServer, Question, Reply, api
from tests.streams.pollers.rollouts import spec
from tests.streams.pollers.test_prometheus import NOON, OWN

SECRET = "s3cret-w0rd"
TARGETS = [target_of(spec(), Channel.METRICS)]


class Asker:
    """A source that is asked once per call."""

    def __init__(self, url: str, **options: Any) -> None:
        settings = PrometheusSettings.read("prom", {**OWN, "latency": "", "url": url, **options})
        self.clock = ManualClock(NOON)
        self.source = PrometheusSource("prom", settings, self.clock)

    async def ask(self) -> None:
        self.clock.advance(5.0)
        await self.source.fetch(TARGETS, self.clock.now(), 5.0)


def kept(folder: Path, text: str = SECRET) -> str:
    path = folder / "secret"
    path.write_text(text)
    return str(path)


async def headers_of(**options: Any) -> dict[str, str]:
    async with api() as server:
        asker = Asker(server.url, **options)
        await asker.ask()
        await asker.source.close()
        return dict(server.questions[-1].headers)


async def test_no_proof_is_given_where_none_is_asked_for() -> None:
    assert "authorization" not in await headers_of()


async def test_a_password_is_read_from_its_file(tmp_path: Path) -> None:
    headers = await headers_of(basic_auth={"username": "ann", "password_file": kept(tmp_path, f"{SECRET}\n")})
    assert headers["authorization"] == "Basic " + base64.b64encode(f"ann:{SECRET}".encode()).decode()


async def test_a_password_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROM_PASSWORD", SECRET)
    headers = await headers_of(basic_auth={"username": "ann", "password_env": "PROM_PASSWORD"})
    assert base64.b64decode(headers["authorization"].split()[1]).decode() == f"ann:{SECRET}"


async def test_a_token_that_changes_is_read_anew(tmp_path: Path) -> None:
    async with api() as server:
        asker = Asker(server.url, authorization={"credentials_file": kept(tmp_path, "one")})
        await asker.ask()
        kept(tmp_path, "two")
        await asker.ask()
        await asker.source.close()
        assert [each.headers["authorization"] for each in server.questions] == ["Bearer one", "Bearer two"]


async def test_headers_hold_plain_values_and_secrets_from_files(tmp_path: Path) -> None:
    headers = await headers_of(
        http_headers={"X-Scope-OrgID": {"values": ["a|b"]}, "X-Key": {"files": [kept(tmp_path)]}}
    )
    assert (headers["x-scope-orgid"], headers["x-key"]) == ("a|b", SECRET)


def issuing(
    server: ApiServer, *, in_body: bool = False, expires_in: int = 100
) -> Callable[[Question], Reply | None]:
    """Tokens numbered from 1, for the client ``sentra`` only; queries need the newest one."""
    issued: list[str] = []

    def script(question: Question) -> Reply | None:
        if question.path == "/token":
            proof = base64.b64encode(f"sentra:{quote_plus(SECRET)}".encode()).decode()
            is_known = (
                question.form.get("client_secret") == SECRET
                if in_body
                else question.headers.get("authorization") == f"Basic {proof}"
            )
            if not is_known or question.form["grant_type"] != "client_credentials":
                return Reply('{"error":"invalid_client"}', 401)
            issued.append(f"token-{len(issued) + 1}")
            return Reply(f'{{"access_token":"{issued[-1]}","expires_in":{expires_in}}}')
        if question.headers.get("authorization") != f"Bearer {issued[-1]}":
            return Reply("who?", 401)
        return None

    return script


@pytest.mark.parametrize("in_body", [False, True])
async def test_a_client_gets_a_token_uses_it_and_renews_it_before_it_expires(
    tmp_path: Path, in_body: bool
) -> None:
    async with api() as server:
        server.script = issuing(server, in_body=in_body)
        oauth = {
            "client_id": "sentra",
            "client_secret_file": kept(tmp_path),
            "token_url": f"{server.url}/token",
            "scopes": ["metrics.read"],
        }
        asker = Asker(server.url, oauth2=oauth)
        for _ in range(20):
            await asker.ask()
        await asker.source.close()
    used = [each.headers["authorization"] for each in server.questions if each.path != "/token"]
    # 100 s of life less a margin of 30: one token for 70 s, the next for the rest.
    assert (used.count("Bearer token-1"), used.count("Bearer token-2")) == (14, 6)
    assert server.questions[0].form["scope"] == "metrics.read"


async def test_a_token_that_is_not_believed_any_more_is_replaced(tmp_path: Path) -> None:
    async with api() as server:
        server.script = issuing(server)
        oauth = {
            "client_id": "sentra",
            "client_secret_file": kept(tmp_path),
            "token_url": f"{server.url}/token",
        }
        asker = Asker(server.url, oauth2=oauth)
        await asker.ask()
        server.script = issuing(server)  # it forgot all tokens
        server.script(Question("/token", server.questions[0].headers, server.questions[0].form))
        server.script(Question("/token", server.questions[0].headers, server.questions[0].form))
        with pytest.raises(SourceRejected, match="does not authorise us"):
            await asker.ask()
        asker.clock.advance(60.0)
        await asker.ask()
        await asker.source.close()


def certificate(folder: Path, name: str, issuer: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
    """A key and a certificate for 127.0.0.1 and ``name``, written as ``name.key`` and ``name.pem``."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signer, by = (key, subject) if issuer is None else (issuer[0], issuer[1].subject)
    born = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName(name)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(born)
        .not_valid_after(born + datetime.timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    made = builder.sign(signer, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / f"{name}.key").write_bytes(text)
    return key, made


def serving_tls(folder: Path) -> ssl.SSLContext:
    """A server that shows ``server.pem`` and wants a certificate of ``ca.pem``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.load_verify_locations(folder / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """``ca``, ``server`` and ``client`` signed by it, and ``stranger`` signed by itself."""
    authority = certificate(tmp_path, "ca")
    certificate(tmp_path, "server", authority)
    certificate(tmp_path, "client", authority)
    certificate(tmp_path, "stranger")
    return tmp_path


def named(folder: Path, **names: str) -> dict[str, str]:
    return {key: str(folder / name) if key.endswith("_file") else name for key, name in names.items()}


async def test_both_sides_show_certificates(certificates: Path) -> None:
    async with api(serving_tls(certificates)) as server:
        tls = named(certificates, ca_file="ca.pem", cert_file="client.pem", key_file="client.key")
        asker = Asker(server.url.replace("http:", "https:"), tls_config={**tls, "server_name": "server"})
        await asker.ask()
        await asker.source.close()
        assert len(server.questions) == 1


@pytest.mark.parametrize(
    "tls, kind, words",
    [
        ({}, SourceRejected, "a certificate we do not trust"),
        ({"ca_file": "stranger.pem"}, SourceRejected, "a certificate we do not trust"),
        ({"ca_file": "ca.pem", "server_name": "other"}, SourceRejected, "a certificate we do not trust"),
        ({"ca_file": "ca.pem"}, SourceUnavailable, "refused the connection|broke off"),
        ({"ca_file": "nobody.pem"}, SourceRejected, r"tls_config: .*nobody\.pem: No such file"),
        ({"ca_file": "server.key"}, SourceRejected, "tls_config: "),
    ],
)
async def test_no_connection_is_made_that_one_side_does_not_trust(
    certificates: Path, tls: dict[str, str], kind: type[SourceError], words: str
) -> None:
    async with api(serving_tls(certificates)) as server:
        asker = Asker(server.url.replace("http:", "https:"), tls_config=named(certificates, **tls))
        with pytest.raises(kind, match=words):
            await asker.ask()
        await asker.source.close()
        assert server.questions == []


async def test_a_certificate_that_is_replaced_is_used_at_once(certificates: Path) -> None:
    async with api(serving_tls(certificates)) as server:
        tls = named(certificates, ca_file="ca.pem", cert_file="stranger.pem", key_file="stranger.key")
        asker = Asker(server.url.replace("http:", "https:"), tls_config=tls)
        with pytest.raises(SourceUnavailable):
            await asker.ask()
        for suffix in ("pem", "key"):
            path = certificates / f"stranger.{suffix}"
            path.write_bytes((certificates / f"client.{suffix}").read_bytes())
            os.utime(path, (1e9, 1e9))
        await asker.ask()
        await asker.source.close()


UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "no file": (
        {"authorization": {"credentials_file": "/no/such"}},
        r"authorization\.credentials: No such file",
    ),
    "no variable": (
        {"basic_auth": {"username": "a", "password_env": "NOT_SET_AT_ALL"}},
        r"basic_auth\.password: the variable NOT_SET_AT_ALL is not set",
    ),
}


@pytest.mark.parametrize("options, words", UNFIT.values(), ids=UNFIT)
async def test_a_secret_that_cannot_be_had_is_named(options: dict[str, Any], words: str) -> None:
    async with api() as server:
        with pytest.raises(SourceRejected, match=words):
            await Asker(server.url, **options).ask()


@pytest.mark.parametrize("text", [f"{SECRET}\nX-Evil: 1", f"{SECRET}\x00", f"{SECRET}ü"])
async def test_no_secret_is_said_by_any_error_or_log(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither by one that cannot be sent, nor by servers that refuse or fail."""
    caplog.set_level(logging.DEBUG)
    said: list[str] = []

    async def ask(url: str, secret: str, **options: Any) -> None:
        asker = Asker(url, authorization={"credentials_file": kept(tmp_path, secret)}, **options)
        with pytest.raises(SourceError) as caught:
            await asker.ask()
        chain: BaseException | None = caught.value
        while chain is not None:
            said.append(f"{chain} {chain!r}")
            chain = chain.__cause__
        await asker.source.close()

    async with api() as server:
        await ask(server.url, text)
        for status in (400, 401, 403, 429, 500):
            server.script = lambda question, status=status: Reply("no", status)  # type: ignore[misc]
            await ask(server.url, SECRET, extra_params={"key": "plain"})
    await ask("http://127.0.0.1:9", SECRET)
    said += [record.getMessage() for record in caplog.records]
    assert any("one line of printable ASCII" in each for each in said)
    assert [each for each in said if SECRET in each] == []
