"""What is counted of OTLP: one increment of one instance of one version. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from domain.signal import Quality
from streams.pollers.otlp_config import OtlpMapping
from streams.pollers.otlp_histograms import Histogram

NANOS = 1e9
"""In a second."""


class Origin(NamedTuple):
    """Who sent it, by the resource's attributes; "" where a resource does not say."""

    service: str
    version: str
    environment: str
    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Events of ``[start, time)``, as far as the sender's clock tells.

    A sign of life counts nothing: it says that a version is there and had nothing to count.
    """

    origin: Origin
    start: float
    time: float
    total: float = 0.0
    bad: float = 0.0
    latencies: Histogram | None = None
    quality: Quality = Quality.WHOLE
    is_sign_of_life: bool = False


@dataclass(slots=True)
class Taken:
    """What became of a request: what it counted, and what of it was refused, with the first reason."""

    counts: list[Count]
    rejected: int = 0
    remark: str = ""

    def refuse(self, items: int, remark: str) -> None:
        self.rejected += items
        self.remark = self.remark or remark

    def note(self, remark: str) -> None:
        """A warning about what was taken."""
        self.remark = self.remark or remark


Attributes = tuple[tuple[str, str], ...]


def attributes_of(pairs: Iterable[Any]) -> Attributes:
    """Attributes in an order of their own, all as text: 200 is the same code as "200".

    Values that are lists or mappings read as "".
    """
    return tuple(sorted((pair.key, _text(pair.value)) for pair in pairs))


def _text(value: Any) -> str:
    kind = value.WhichOneof("value")
    found = getattr(value, kind) if kind is not None else ""
    return str(found) if isinstance(found, (str, int, float)) else ""


def origin_of(attributes: Attributes, mapping: OtlpMapping) -> Origin | None:
    """Who sent a resource's telemetry; ``None`` when it does not name service and version."""
    of = dict(attributes)
    service, version = of.get(mapping.service_attribute), of.get(mapping.version_attribute)
    if not service or not version:
        return None
    environment = of.get(mapping.environment_attribute, "") if mapping.environment_attribute else ""
    if mapping.environment_attribute == "deployment.environment.name" and not environment:
        environment = of.get("deployment.environment", "")  # its name in older conventions
    instance = of.get(mapping.instance_attribute, "") if mapping.instance_attribute else ""
    return Origin(service, version, environment, instance)
