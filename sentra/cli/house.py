"""Whether all of Sentra's packages are Sentra's: their names are generic, others may have them too."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import sentra
from domain.errors import ConfigError

ROOMS = ("streams", "scorers", "actuators", "store", "dashboard", "domain")


def check_house() -> None:
    """Raise :class:`ConfigError` when a room was loaded from another house."""
    home = Path(sentra.__file__).resolve().parent.parent
    for room in ROOMS:
        found = _place_of(room)
        if found != home:
            raise ConfigError(
                f"the package {room!r} is not Sentra's: it comes from {found}, Sentra from {home}; "
                "install Sentra into an environment of its own"
            )


def _place_of(package: str) -> Path | None:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).resolve().parent.parent
