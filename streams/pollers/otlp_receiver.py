"""The HTTP server that exporters and collectors send OTLP to. One per address, whoever reads from it.

::

    answer   when
    200      taken; ``partial_success`` says what of it was refused, or what is strange about it
    400      not what its media type says, cut off, not gzip
    401      without the right token (a client certificate is asked for before there is any HTTP)
    404 405  another path than /v1/metrics, /v1/logs, /v1/traces; another method than POST
    408      the body did not come in time
    413      more bytes than are taken, before or after decompression
    415      neither protobuf nor JSON, or compressed otherwise than by gzip
    429      too much is being received at once: ``Retry-After`` says when to come again
    503      the receiver cannot check tokens, or is closing

References
----------
OTLP 1.x, "OTLP/HTTP": response codes, partial success, ``Retry-After``.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from domain.clock import Clock
from domain.errors import RecordError, SourceRejected, SourceUnavailable
from domain.signal import Channel
from streams.pollers.otlp_config import OtlpSettings
from streams.pollers.otlp_intake import Intake
from streams.pollers.otlp_messages import (
    JSON,
    MEDIA,
    PROTOBUF,
    BodyTooLarge,
    encode_response,
    encode_status,
    gunzip,
)

log = logging.getLogger(__name__)

PATHS = {"/v1/metrics": Channel.METRICS, "/v1/logs": Channel.LOGS, "/v1/traces": Channel.TRACES}
BODY_S = 10.0
"""Within which a body must have come: exporters give up after as long."""
RETRY_AFTER_S = 1
SHUTDOWN_S = 2.0


class _Refused(Exception):
    """A request that gets another answer than 200. Never leaves this file."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        self.status = status
        self.message = message
        self.headers = headers
        super().__init__(message)


class Receiver:
    """Listens on one address and hands what it gets to its :class:`Intake`."""

    def __init__(self, settings: OtlpSettings, clock: Clock) -> None:
        self.settings = settings
        self.intake = Intake(settings, clock.now())
        self.port = settings.port
        """The one that was chosen, if the settings say 0."""
        self._clock = clock
        self._runner: web.AppRunner | None = None
        self._starting = asyncio.Lock()
        self._waiting_bytes = 0
        self._readers: set[str] = set()

    async def start(self, reader: str) -> None:
        """Listen, if that is not so yet, for the source named ``reader`` too.

        Raises
        ------
        SourceUnavailable, SourceRejected
            When the address cannot be had now; when certificates cannot be used.
        """
        self._readers.add(reader)
        async with self._starting:
            if self._runner is None:
                self._runner = await self._listen()

    async def stop(self, reader: str) -> None:
        """Listen no longer once no source reads."""
        self._readers.discard(reader)
        async with self._starting:
            if self._runner is not None and not self._readers:
                runner, self._runner = self._runner, None
                await runner.cleanup()

    async def _listen(self) -> web.AppRunner:
        app = web.Application()
        for path in PATHS:
            app.router.add_post(path, self._handle)
        # Bodies are decompressed here, with a limit.
        runner = web.AppRunner(
            app, access_log=None, auto_decompress=False, handle_signals=False, shutdown_timeout=SHUTDOWN_S
        )
        await runner.setup()
        settings = self.settings
        try:
            site = web.TCPSite(runner, settings.host, self.port, ssl_context=self._tls(), reuse_address=True)
            await site.start()
        except OSError as exc:
            await runner.cleanup()
            raise SourceUnavailable(f"cannot listen on {settings.listen}: {exc.strerror or exc}") from exc
        except SourceRejected:
            await runner.cleanup()
            raise
        self.port = runner.addresses[0][1]
        log.info("OTLP is received on %s:%d", settings.host, self.port)
        return runner

    def _tls(self) -> ssl.SSLContext | None:
        settings = self.settings
        if not settings.cert_file:
            return None
        try:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(settings.cert_file, settings.key_file)
            if settings.client_ca_file:
                context.load_verify_locations(settings.client_ca_file)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as exc:
            raise SourceRejected(f"cannot use cert_file, key_file or client_ca_file: {exc.strerror}") from exc
        return context

    async def _handle(self, request: web.Request) -> web.Response:
        media = request.content_type if request.content_type in MEDIA else PROTOBUF
        try:
            rejected, message = await self._take(request)
        except _Refused as exc:
            if exc.status not in (401, 429):  # those would be many
                log.warning("OTLP of %s refused: %s", request.remote, exc.message)
            # What is left of the body is not read, so the connection cannot be used again.
            answer = web.Response(
                status=exc.status,
                body=encode_status(media, exc.message),
                content_type=media,
                headers=exc.headers,
            )
            answer.force_close()
            return answer
        body = encode_response(PATHS[request.path], media, rejected, message)
        return web.Response(body=body, content_type=media)

    async def _take(self, request: web.Request) -> tuple[int, str]:
        self._check_token(request)
        if request.content_type not in MEDIA:
            raise _Refused(415, f"send {PROTOBUF} or {JSON}, not {request.content_type}")
        encoding = request.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("identity", "gzip"):
            raise _Refused(415, f"send bodies as they are or by gzip, not by {encoding[:20]}")
        try:
            body = await self._body(request)
            if encoding == "gzip":
                body = gunzip(body, self.settings.max_message_bytes)
            channel = PATHS[request.path]
            taken = self.intake.take(channel, body, request.content_type, self._clock.now())
        except BodyTooLarge as exc:
            raise _Refused(413, str(exc)) from exc
        except RecordError as exc:
            raise _Refused(400, str(exc)) from exc
        if taken.rejected:
            log.warning("OTLP of %s: %d items refused: %s", request.remote, taken.rejected, taken.remark)
        return taken.rejected, taken.remark

    def _check_token(self, request: web.Request) -> None:
        if not self.settings.token_file:
            return
        try:
            token = Path(self.settings.token_file).read_text().strip()
        except OSError as exc:
            raise _Refused(503, "the receiver cannot check tokens now", **{"Retry-After": "5"}) from exc
        given = request.headers.get("Authorization", "")
        if not token or not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise _Refused(401, "send the receiver's token", **{"WWW-Authenticate": "Bearer"})

    async def _body(self, request: web.Request) -> bytes:
        most = self.settings.max_body_bytes
        if (request.content_length or 0) > most:
            raise BodyTooLarge(f"the body has {request.content_length} bytes, at most {most} are taken")
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_S):
                with self._room_for(request.content_length or most):
                    async for piece in request.content.iter_any():
                        body += piece
                        if len(body) > most:
                            raise BodyTooLarge(f"the body has more than {most} bytes")
        except TimeoutError as exc:
            raise _Refused(408, f"the body did not come within {BODY_S:g} s") from exc
        return bytes(body)

    @contextmanager
    def _room_for(self, size: int) -> Iterator[None]:
        """Memory for a body while it comes; a body of unknown length may become as long as any."""
        if self._waiting_bytes + size > self.settings.max_waiting_bytes:
            raise _Refused(429, "too much is being received", **{"Retry-After": str(RETRY_AFTER_S)})
        self._waiting_bytes += size
        try:
            yield
        finally:
            self._waiting_bytes -= size
