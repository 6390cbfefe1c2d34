"""Settings: ``sentra.yaml``, then environment variables, then defaults. One typed place that composes them.

Every key can also be said as ``SENTRA_KEY`` (``SENTRA_DATABASE``, ``SENTRA_BOOTSTRAP`` …), which wins over
the file. Settings that belong to one room live there (``streams.settings``, ``streams.pollers.config``).
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from domain.errors import ConfigError
from domain.signal import Freshness
from streams.pollers.config import SourceSettings
from streams.pollers.registry import read_sources
from streams.settings import StreamSettings

FILE = "sentra.yaml"
STATE_DIR = Path(".sentra")


class Profile(StrEnum):
    """Which broker Sentra talks to; timings follow from it."""

    EMBEDDED = "embedded"
    PRODUCTION = "production"


class Settings(BaseSettings):
    """One process's settings. Unknown keys are refused."""

    model_config = SettingsConfigDict(env_prefix="SENTRA_", extra="forbid", frozen=True)

    state_dir: Path = STATE_DIR
    """Where the embedded stack keeps its database, logs and running state."""
    profile: Profile = Profile.EMBEDDED
    bootstrap: str = ""
    """Kafka's ``host:port[,host:port]``; empty for the embedded broker, whose port is found at run time."""
    namespace: str = ""
    """Prefix of topics and groups, when several installations share a broker."""
    partitions: int = Field(default=4, ge=1)
    broker_epoch: str = ""
    """Identity of the log. The embedded stack sets it anew at each start of its broker."""
    database: str = ""
    """``sqlite:///file`` or ``mysql+pymysql://…``; empty for SQLite in the state folder."""
    redis: str = ""
    """``redis://…`` for the live state; empty for none."""
    sources: dict[str, Any] = {}
    """Telemetry sources by name; keys per kind: README, "Sources"."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, whose content comes as arguments."""
        return (env_settings, init_settings)

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{(self.state_dir / 'sentra.db').absolute()}"

    def stream(self) -> StreamSettings:
        """How to speak to the broker; :class:`ConfigError` when there is none."""
        if not self.bootstrap:
            raise ConfigError(
                "no broker: set bootstrap in sentra.yaml (or SENTRA_BOOTSTRAP), or run sentra up"
            )
        make = StreamSettings.embedded if self.profile is Profile.EMBEDDED else StreamSettings.production
        return make(self.bootstrap, namespace=self.namespace, partitions=self.partitions)

    def source_settings(self) -> dict[str, SourceSettings]:
        """The telemetry sources, checked."""
        return read_sources(self.sources)

    def freshness(self) -> dict[str, Freshness]:
        """The freshness class of every source, which a rollout freezes when it starts."""
        return {name: each.freshness for name, each in self.source_settings().items()}


def load(path: Path | None = None, **changes: Any) -> Settings:
    """Read the settings. ``path`` must exist when it is given; otherwise ``sentra.yaml`` may be missing.

    Raises
    ------
    ConfigError
        Naming the file, the key, the value and the rule.
    """
    content = _content(path)
    try:
        return Settings(**(content | changes))
    except ValidationError as exc:
        first = exc.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        known = (
            f"; known are {', '.join(Settings.model_fields)}" if first["type"] == "extra_forbidden" else ""
        )
        raise ConfigError(f"{path or FILE}: {key}: {first['msg']}{known}") from exc


def _content(path: Path | None) -> dict[str, Any]:
    found = path or Path(FILE)
    if path is None and not found.exists():
        return {}
    try:
        content = yaml.safe_load(found.read_text(encoding="utf-8")) or {}
    except OSError as exc:
        raise ConfigError(f"cannot read {found}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"cannot read {found}: it is not text in UTF-8") from exc
    except yaml.YAMLError as exc:
        raise ConfigError(f"{found} is not YAML: {exc}") from exc
    if not isinstance(content, dict):
        raise ConfigError(f"{found} must be a mapping of keys to values")
    return content
