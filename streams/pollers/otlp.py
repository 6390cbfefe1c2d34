"""The OTLP source: services and collectors send metrics, logs and traces straight to the poller.

The freshest source without a telemetry store: what was exported a moment ago is in the tick that ends now.
One source carries one kind of telemetry; sources that listen on the same address share one receiver, and it
serves all rollouts of the process. It begins to listen when the first of them is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from domain.clock import Clock
from domain.errors import ConfigError, SourceRejected
from streams.pollers.base import Fetched, Target
from streams.pollers.config import SourceSettings
from streams.pollers.otlp_config import OtlpMapping, OtlpSettings
from streams.pollers.otlp_intake import Intake
from streams.pollers.otlp_receiver import Receiver
from streams.pollers.otlp_samples import TickReader

_RECEIVERS: WeakValueDictionary[str, Receiver] = WeakValueDictionary()
"""By address; alive as long as a source has it."""


class OtlpSource:
    """Implements :class:`streams.pollers.base.Source`."""

    Settings = OtlpSettings

    def __init__(self, name: str, settings: SourceSettings, clock: Clock) -> None:
        assert isinstance(settings, OtlpSettings)
        self.name = name
        self.channel = settings.carries
        self.freshness = settings.freshness
        self.receiver = _receiver(name, settings, clock)
        self._settings = settings
        self._clock = clock

    async def fetch(self, targets: Sequence[Target], end: float, interval_s: float) -> Fetched:
        """What has arrived before ``end``. See :class:`streams.pollers.base.Source`."""
        await self.receiver.start(self.name)
        self._check_token_file()
        return read_tick(
            self.name, self._settings, self.receiver.intake, targets, end, interval_s, self._clock.now()
        )

    async def close(self) -> None:
        """Stop listening, unless another source still reads."""
        await self.receiver.stop(self.name)

    def _check_token_file(self) -> None:
        """Say so when nobody can send: silence would not tell why."""
        if self._settings.token_file and not Path(self._settings.token_file).is_file():
            raise SourceRejected("takes nothing: token_file is not there")


def read_tick(
    name: str,
    mapping: OtlpMapping,
    intake: Intake,
    targets: Sequence[Target],
    end: float,
    interval_s: float,
    now: float,
) -> Fetched:
    """The samples of the tick that ends at ``end``, from what ``intake`` has taken for source ``name``."""
    book = intake.book(name, mapping.carries, interval_s, mapping.freshness.lateness_s, now)
    tick = book.close(end)
    if tick is None:
        return Fetched(end=end)
    return TickReader(tick, mapping, interval_s, book.reach_s).fetched(targets)


def _receiver(name: str, settings: OtlpSettings, clock: Clock) -> Receiver:
    found = None if settings.port == 0 else _RECEIVERS.get(settings.listen)
    if found is None:
        found = _RECEIVERS[settings.listen] = Receiver(settings, clock)
    mine, theirs = settings.receiver(), found.settings.receiver()
    for key in mine:
        if mine[key] != theirs[key]:
            raise ConfigError(
                f"sources.{name}.{key}: sources that listen on {settings.listen} must all have the same"
            )
    return found
