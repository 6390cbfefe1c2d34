"""What all sources' settings have in common: how they are read, and how they complain.

Each kind keeps its own settings beside its code, as a subclass of :class:`SourceSettings`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from domain.errors import ConfigError
from domain.signal import Channel, Freshness
from domain.units import parse_duration

_SECRET_WORDS = ("token", "password", "secret", "url", "target")
"""Keys whose values are not repeated in messages, because a secret may have been put there."""


def check_url(url: str) -> str:
    """``url`` itself when it can be fetched and holds no secret; ``ValueError`` otherwise."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a URL starts with http:// or https:// and a host")
    if parts.username or parts.password:
        raise ValueError("a URL must not hold credentials; use token_file")
    return url


def _check_template(template: str) -> str:
    try:
        template.format(service="", environment="", version="")
    except (LookupError, ValueError) as exc:
        raise ValueError("a template may use {service}, {environment} and {version}") from exc
    return template


def _check_regex(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as exc:
        raise ValueError(f"not a regular expression: {exc}") from exc
    return pattern


Url = Annotated[str, AfterValidator(check_url)]
Template = Annotated[str, AfterValidator(_check_template)]
"""Text in which {service}, {environment} and {version} may stand, see ``Target.label_value``."""
Regex = Annotated[str, AfterValidator(_check_regex)]
Seconds = Annotated[float, BeforeValidator(parse_duration)]
"""Written with a unit (``500ms``, ``5s``), kept in seconds."""


class SourceSettings(BaseModel):
    """Settings of one source, as ``sources.NAME`` in the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channel: ClassVar[Channel]

    kind: str
    freshness: Freshness = Freshness.REALTIME
    """How far behind the present it reports: realtime, near or slow."""

    @classmethod
    def read(cls, name: str, settings: Mapping[str, Any]) -> Self:
        """The settings of source ``name``; :class:`ConfigError` for the first rule they break."""
        try:
            return cls.model_validate(settings)
        except ValidationError as exc:
            raise ConfigError(_sentence(cls, name, exc)) from None  # its text would repeat the values


def _sentence(cls: type[BaseModel], name: str, broken: ValidationError) -> str:
    first = broken.errors()[0]
    key = ".".join(["sources", name, *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key; known are {', '.join(cls.model_fields)}"
    if first["type"] == "missing":
        return f"{key} is missing"
    rule = first["msg"].removeprefix("Value error, ")
    is_secret = any(word in key.lower() for word in _SECRET_WORDS)
    is_whole = first["loc"] == ()
    return f"{key}: {rule}" + ("" if is_secret or is_whole else f", got {first['input']!r}")
