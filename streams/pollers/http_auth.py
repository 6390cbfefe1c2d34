"""How sources that are asked over HTTP prove who they are: settings, headers and TLS, shared by all.

The names are those of Prometheus' ``http_config``, so that operators can paste. Secrets are only ever named
(a file, an environment variable), read anew when they are needed, and never repeated: an error says which key
could not be used, not what it holds. TLS is always verified.
"""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote_plus

import httpx
import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

from domain.clock import Clock
from domain.errors import SourceError, SourceRejected, SourceUnavailable
from streams.pollers.config import Url

TOKEN_MARGIN_S = 30.0
"""A token is replaced this long before it expires: it must outlive the request, and clocks differ."""
TOKEN_LIFE_S = 300.0
"""How long a token is used whose issuer does not say."""
TOKEN_TIMEOUT_S = 5.0


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Secret(_Part):
    """Where a secret is kept. Exactly one of both."""

    file: str = ""
    env: str = ""

    def read(self, key: str) -> str:
        """The secret, stripped of white space; :class:`SourceRejected` names ``key`` if it is unfit."""
        if self.env:
            text = os.environ.get(self.env, "")
            if not text:
                raise SourceRejected(f"cannot be asked: {key}: the variable {self.env} is not set")
        else:
            try:
                text = Path(self.file).read_text().strip()
            except (OSError, UnicodeDecodeError) as exc:
                reason = exc.strerror if isinstance(exc, OSError) else "is not text"
                raise SourceRejected(f"cannot be asked: {key}: {reason}") from None
        # A line break would end the header, and the library's complaint would quote it.
        if not text.isascii() or not text.isprintable():
            raise SourceRejected(f"cannot be asked: {key}: is not one line of printable ASCII")
        return text


def _secret(part: BaseModel, name: str) -> Secret:
    return Secret(file=getattr(part, f"{name}_file"), env=getattr(part, f"{name}_env"))


def _require_one(part: BaseModel, name: str) -> None:
    given = [bool(getattr(part, f"{name}_{place}")) for place in ("file", "env")]
    if sum(given) != 1:
        raise ValueError(f"say where the secret is kept: {name}_file or {name}_env, one of both")


class BasicAuth(_Part):
    """User name and password."""

    username: str
    password_file: str = ""
    password_env: str = ""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        _require_one(self, "password")
        return self


class Authorization(_Part):
    """A token that somebody else renews."""

    type: str = Field(default="Bearer", pattern=r"^[A-Za-z][A-Za-z0-9-]*$")
    credentials_file: str = ""
    credentials_env: str = ""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        _require_one(self, "credentials")
        return self


class OAuth2(_Part):
    """Client credentials: a token is asked for when it is needed, and renewed before it expires."""

    client_id: str
    client_secret_file: str = ""
    client_secret_env: str = ""
    token_url: Url
    scopes: tuple[str, ...] = ()
    endpoint_params: dict[str, str] = {}

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        _require_one(self, "client_secret")
        return self


class TlsConfig(_Part):
    """Whom we trust, and our own certificate."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""
    """The name on the server's certificate, where that is not the host of the URL."""
    insecure_skip_verify: Literal[False] = False

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together")
        return self


class HttpHeader(_Part):
    """Values of one header; those from files are secret."""

    values: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class HttpSettings(BaseModel):
    """The part of a source's settings that says how it is asked."""

    basic_auth: BasicAuth | None = None
    authorization: Authorization | None = None
    oauth2: OAuth2 | None = None
    tls_config: TlsConfig = TlsConfig()
    http_headers: dict[str, HttpHeader] = {}
    """Further headers, such as a tenant."""

    @model_validator(mode="after")
    def _one_identity(self) -> Self:
        named = [name for name in ("basic_auth", "authorization", "oauth2") if getattr(self, name)]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} exclude each other")
        return self


class HttpAccess:
    """A client with the TLS and the headers that settings ask for. Made without touching anything outside."""

    def __init__(self, settings: HttpSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._client: httpx.AsyncClient | None = None
        self._retired: list[httpx.AsyncClient] = []
        """Replaced, but a request may still be using one."""
        self._tls_seen: tuple[float, ...] = ()
        self._token = ""
        self._token_until = 0.0

    def client(self) -> httpx.AsyncClient:
        """The client, made anew when a certificate file has changed. Ignores proxies of the environment."""
        seen = self._tls_files()
        if self._client is None or seen != self._tls_seen:
            fresh = self._connect()
            if self._client is not None:
                self._retired.append(self._client)
            self._client, self._tls_seen = fresh, seen
        return self._client

    def extensions(self) -> dict[str, Any]:
        """What a request must carry besides: the name to expect on the certificate."""
        name = self._settings.tls_config.server_name
        return {"sni_hostname": name} if name else {}

    async def headers(self) -> dict[str, str]:
        """The headers of a request made now; :class:`SourceError` when a secret cannot be had."""
        settings = self._settings
        headers = {name: _values(name, each) for name, each in settings.http_headers.items()}
        if settings.basic_auth is not None:
            password = _secret(settings.basic_auth, "password").read("basic_auth.password")
            headers["Authorization"] = _basic(settings.basic_auth.username, password)
        if settings.authorization is not None:
            token = _secret(settings.authorization, "credentials").read("authorization.credentials")
            headers["Authorization"] = f"{settings.authorization.type} {token}"
        if settings.oauth2 is not None:
            headers["Authorization"] = f"Bearer {await self._oauth_token(settings.oauth2)}"
        return headers

    def refused(self) -> None:
        """The server did not believe us: the next request asks for another token."""
        self._token = ""

    async def close(self) -> None:
        """Close all connections."""
        for each in (self._client, *self._retired):
            if each is not None:
                await each.aclose()
        self._client = None
        self._retired.clear()

    def _tls_files(self) -> tuple[float, ...]:
        tls = self._settings.tls_config
        try:
            named = (tls.ca_file, tls.cert_file, tls.key_file)
            return tuple(os.stat(path).st_mtime for path in named if path)
        except OSError as exc:
            raise SourceRejected(f"cannot be asked: tls_config: {exc.filename}: {exc.strerror}") from None

    def _connect(self) -> httpx.AsyncClient:
        tls = self._settings.tls_config
        try:
            context = ssl.create_default_context(cafile=tls.ca_file or None)
            if tls.cert_file:
                context.load_cert_chain(tls.cert_file, tls.key_file)
        except (OSError, ssl.SSLError) as exc:
            raise SourceRejected(f"cannot be asked: tls_config: {exc.strerror or 'unusable file'}") from None
        return httpx.AsyncClient(verify=context, trust_env=False, timeout=None)

    async def _oauth_token(self, oauth: OAuth2) -> str:
        now = self._clock.now()
        if not self._token or not now < self._token_until:
            self._token, life_s = await _ask_for_token(self.client(), oauth)
            self._token_until = now + max(life_s - TOKEN_MARGIN_S, 0.5 * life_s)
        return self._token


def _values(name: str, header: HttpHeader) -> str:
    read = (Secret(file=path).read(f"http_headers.{name}") for path in header.files)
    return ", ".join([*header.values, *read])


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


class _Token(msgspec.Struct):
    access_token: str
    expires_in: float = TOKEN_LIFE_S


async def _ask_for_token(client: httpx.AsyncClient, oauth: OAuth2) -> tuple[str, float]:
    """A token and how many seconds it lives. RFC 6749 §2.3.1: by header, by body where that is refused."""
    secret = _secret(oauth, "client_secret").read("oauth2.client_secret")
    form: dict[str, str] = {"grant_type": "client_credentials", **oauth.endpoint_params}
    if oauth.scopes:
        form["scope"] = " ".join(oauth.scopes)
    headers = {"Authorization": _basic(quote_plus(oauth.client_id), quote_plus(secret))}
    answer = await _post(client, oauth.token_url, form, headers)
    if answer.status_code in (400, 401):
        answer = await _post(
            client, oauth.token_url, {**form, "client_id": oauth.client_id, "client_secret": secret}, {}
        )
    if answer.status_code >= 500 or answer.status_code == 429:
        raise SourceUnavailable(f"cannot be asked: oauth2.token_url answered status {answer.status_code}")
    if answer.status_code != 200:
        raise SourceRejected(f"cannot be asked: oauth2.token_url answered status {answer.status_code}")
    try:
        token = msgspec.json.decode(answer.content, type=_Token)
    except msgspec.DecodeError as exc:
        raise SourceRejected("cannot be asked: oauth2.token_url answered no access_token") from exc
    return token.access_token, token.expires_in


async def _post(
    client: httpx.AsyncClient, url: str, form: Mapping[str, str], headers: Mapping[str, str]
) -> httpx.Response:
    try:
        return await client.post(url, data=dict(form), headers=dict(headers), timeout=TOKEN_TIMEOUT_S)
    except httpx.HTTPError as exc:
        raise transport_error(exc, "oauth2.token_url") from exc


def transport_error(exc: httpx.HTTPError, what: str = "") -> SourceError:
    """A library's exception in our words. Its own text is never repeated: it may quote a header."""
    subject = f"cannot be asked: {what} " if what else ""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return SourceRejected(f"{subject}has a certificate we do not trust: {cause.verify_message}")
        cause = cause.__cause__ or cause.__context__
    if isinstance(exc, httpx.ConnectError):
        return SourceUnavailable(f"{subject}refused the connection")
    if isinstance(exc, httpx.TimeoutException):
        return SourceUnavailable(f"{subject}did not answer in time")
    return SourceUnavailable(f"{subject}broke off: {type(exc).__name__}")
