"""The standard labels that all telemetry and every record carries."""

from __future__ import annotations

import msgspec


class Labels(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a record belongs. Empty text means "not said", never "none"."""

    cloud: str = ""
    region: str = ""
    cluster: str = ""
    project: str = ""
    service: str = ""
    env: str = ""
    version: str = ""
