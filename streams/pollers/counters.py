"""From cumulative readings to exact increments over disjoint intervals. Pure.

A :class:`Ledger` remembers the last good reading of every endpoint. What an endpoint counted since then is
its increment, so nothing is lost when readings are missed and nothing is counted twice::

    tick           0         1         2         3         4
    endpoint A     100       130       170       (missed)  260
    increments       first     +30       +40                 +90 over [2, 4), spans

A process that restarts begins at 0. What it counted after the last reading and before its end is lost; what
it counted since is its present value::

    endpoint B     500       540    x  12        31
    increments       first     +40       +12 reset +19

An arm is the sum of its endpoints. When one of them was silent, the sum of the others is partial; when it
comes back, its long increment moves the arm's start to the earliest start::

    endpoint A     100       130       170       200       |  the arm at 2:  +40      over [1, 2), partial
    endpoint B     500       540       (missed)  600       |  the arm at 3:  +30 +60  over [1, 3), spans

So the *claimed* interval of an arm may reach back over ticks that were reported without B, but every
increment of B itself lies in exactly one sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domain.signal import Quality

Group = Any
"""Names counters that live and die together, such as those of one version. Hashable."""
Name = Any
"""One counter of a group. Hashable; mappings are invariant in their keys, so the type cannot say more."""
Values = Mapping[Name, float]

_LIFE_SLACK_S = 0.5
"""Start times are written with rounding; a restart takes longer than this."""


@dataclass(frozen=True, slots=True)
class Reading:
    """All counters of one endpoint at one moment.

    ``life`` never falls while the process lives and does when it restarts (its uptime, or its start time
    negated); ``None`` when the endpoint does not say.
    """

    groups: Mapping[Group, Values]
    life: float | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """What one endpoint counted for one group since ``start``.

    The first reading of an endpoint has no start and counts nothing.
    """

    start: float | None
    values: Values
    is_reset: bool = False


@dataclass(frozen=True, slots=True)
class Increment:
    """What an arm counted in ``[start, end)``."""

    start: float
    end: float
    values: Values
    quality: Quality


@dataclass(slots=True)
class _Kept:
    """The last good reading of one endpoint; each group with the moment it was last seen."""

    end: float
    life: float | None
    groups: dict[Group, tuple[float, Values]]


@dataclass(slots=True)
class Ledger:
    """The last good readings of all endpoints of one source, for one interval."""

    _kept: dict[str, _Kept] = field(default_factory=dict)

    def enter(self, endpoint: str, end: float, reading: Reading) -> Mapping[Group, Part]:
        """What ``endpoint`` counted since its last good reading; nothing if that one is not older."""
        kept = self._kept.get(endpoint)
        if kept is None:
            self._kept[endpoint] = _kept(end, reading)
            return {group: Part(None, dict.fromkeys(of, 0.0)) for group, of in reading.groups.items()}
        if kept.end >= end:
            return {}
        if _restarted(kept, reading):
            parts = {group: Part(kept.end, values, True) for group, values in reading.groups.items()}
            self._kept[endpoint] = _kept(end, reading)
            return parts
        parts = {group: _part(kept, group, values) for group, values in reading.groups.items()}
        # A group that this page lacks is kept: if it comes back, it goes on from where it was.
        kept.groups.update({group: (end, values) for group, values in reading.groups.items()})
        kept.end, kept.life = end, reading.life
        return parts

    def holds(self, endpoint: str, group: Group) -> bool:
        """Whether ``endpoint`` has shown ``group`` in its present life."""
        kept = self._kept.get(endpoint)
        return kept is not None and group in kept.groups

    def knows(self, endpoint: str) -> bool:
        """Whether ``endpoint`` has ever answered."""
        return endpoint in self._kept


def _kept(end: float, reading: Reading) -> _Kept:
    return _Kept(end, reading.life, {group: (end, values) for group, values in reading.groups.items()})


def _part(kept: _Kept, group: Group, values: Values) -> Part:
    """A group that was not there when the endpoint was last read has counted from 0 since."""
    start, earlier = kept.groups.get(group, (kept.end, {}))
    if _has_fallen(earlier, values):
        return Part(start, values, is_reset=True)
    return Part(start, {name: value - earlier.get(name, 0.0) for name, value in values.items()})


def _restarted(kept: _Kept, after: Reading) -> bool:
    """Whether the whole process began anew.

    If it does not say how old it is, any counter that fell is taken as proof: another counter of the same
    process may have overtaken its old value in the meantime and would look as if it had gone on.
    """
    if kept.life is not None and after.life is not None:
        return after.life < kept.life - _LIFE_SLACK_S
    return any(
        _has_fallen(earlier, after.groups[group])
        for group, (_, earlier) in kept.groups.items()
        if group in after.groups
    )


def _has_fallen(before: Values, after: Values) -> bool:
    return any(name in after and after[name] < value for name, value in before.items())


def add_up(
    parts: Sequence[Part], *, end: float, interval_s: float, is_partial: bool, common_only: bool = False
) -> Increment | None:
    """The increment of one arm over the endpoints that answered; ``None`` when there are none.

    ``is_partial`` says that an endpoint of the arm did not answer. An endpoint read for the first time adds
    nothing; when all of them were, the increment is empty and says so. A counter that an endpoint does not
    have yet counts 0 there; with ``common_only`` (bucket edges) it is left out of the sum altogether.
    """
    if not parts:
        return None
    counted = [part for part in parts if part.start is not None]
    start = min((part.start for part in counted if part.start is not None), default=end - interval_s)
    quality = Quality.WHOLE if counted else Quality.FIRST
    if is_partial or 0 < len(counted) < len(parts):
        quality |= Quality.PARTIAL
    if any(part.is_reset for part in counted):
        quality |= Quality.RESET
    if end - start > 1.5 * interval_s:
        quality |= Quality.SPANS
    return Increment(start, end, _sum(counted or parts, common_only), quality)


def _sum(parts: Sequence[Part], common_only: bool) -> Values:
    if len(parts) == 1:
        return parts[0].values
    total: dict[Name, float] = {}
    for part in parts:
        for name, value in part.values.items():
            total[name] = total.get(name, 0.0) + value
    if common_only:
        return {name: value for name, value in total.items() if all(name in part.values for part in parts)}
    return total
