"""What is known of each service: finished rollouts as learning remembers them, and what was learnt of them.

Rule: rows are added and, but for one mark, never changed. A calibration is stored as a new version only when
it says something new. Whoever starts a rollout asks here once; the answer is frozen into the rollout's
specification.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, Engine, Row, Select, func, insert, select, update

from domain.calibration import Calibration
from domain.policy import JudgeName
from domain.rollout import Phase, RolloutSpec
from store.catalogue import json_text
from store.database import reading, write_past_races
from store.models import CalibrationRun, CalibrationVersion, Deployment

T = TypeVar("T")

_calibration = msgspec.json.Decoder(Calibration).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A finished rollout as learning remembers it. ``run`` is learning's own bytes; empty when the rollout
    says nothing. ``at`` is when it ended."""

    rollout_id: str
    service: str
    environment: str
    interval_s: float
    outcome: Phase
    is_healthy: bool
    at: float
    run: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCalibration:
    """One version of what is known of a service in an environment."""

    service: str
    environment: str
    version: int
    at: float
    calibration: Calibration


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Place:
    """What a calibration holds for: a service somewhere, judged by ticks of one length."""

    service: str
    environment: str
    interval_s: float


class Calibrations:
    """The calibrations in the database behind ``engine``; may be used from many threads.

    Every method raises :class:`StoreUnavailable` when the database cannot be asked now.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- for starting rollouts

    def frozen_into(self, spec: RolloutSpec) -> RolloutSpec:
        """``spec`` with the newest calibration that fits its policy, or with none: a rollout knows at its
        start all that it will ever know. Only the evidence judge asks for it."""
        if spec.policy.judge is not JudgeName.EVIDENCE:
            return replace(spec, calibration=None)
        newest = self.newest(
            Place(service=spec.service, environment=spec.environment, interval_s=spec.policy.interval_s)
        )
        return replace(spec, calibration=None if newest is None else newest.calibration)

    def newest(self, place: Place) -> StoredCalibration | None:
        """The version that counts."""
        query = _of_place(select(CalibrationVersion), CalibrationVersion, place)
        query = query.order_by(CalibrationVersion.version.desc()).limit(1)
        found = self._read(lambda connection: connection.execute(query).one_or_none())
        return None if found is None else _version(found)

    # --- for people

    def list_newest(self) -> list[StoredCalibration]:
        """The versions that count, by service, environment and tick length."""
        table = CalibrationVersion
        newest = select(func.max(table.id)).group_by(table.service, table.environment, table.interval_s)
        query = select(table).where(table.id.in_(newest))
        rows = self._read(lambda connection: connection.execute(query).all())
        return sorted(map(_version, rows), key=lambda each: (each.service, each.environment, each.version))

    def counts(self, place: Place) -> tuple[int, int]:
        """Remembered rollouts: all that say something, and the healthy ones among them."""
        table = CalibrationRun
        query = _of_place(select(table.is_healthy), table, place).where(table.run.is_not(None))
        found = self._read(lambda connection: list(connection.scalars(query)))
        return len(found), sum(found)

    def places(self) -> list[Place]:
        """Where rollouts are remembered that say something."""
        table = CalibrationRun
        query = select(table.service, table.environment, table.interval_s).distinct()
        rows = self._read(lambda connection: connection.execute(query.where(table.run.is_not(None))).all())
        return sorted(
            Place(service=row.service, environment=row.environment, interval_s=row.interval_s) for row in rows
        )

    def ended_at(self, rollout_ids: Sequence[str]) -> dict[str, float]:
        """When remembered rollouts ended."""
        query = select(CalibrationRun.rollout_id, CalibrationRun.at)
        query = query.where(CalibrationRun.rollout_id.in_(rollout_ids))
        return {row.rollout_id: row.at for row in self._read(lambda each: each.execute(query).all())}

    # --- for learning

    def unremembered(self, *, since: float, limit: int) -> list[str]:
        """Rollouts that ended after ``since`` and of which nothing is remembered, newest first. Those whose
        evaluations were pruned are left out."""
        query = (
            select(Deployment.rollout_id)
            .outerjoin(CalibrationRun, CalibrationRun.rollout_id == Deployment.rollout_id)
            .where(Deployment.completed_at > since, Deployment.pruned_at.is_(None))
            .where(CalibrationRun.rollout_id.is_(None))
            .order_by(Deployment.completed_at.desc())
            .limit(limit)
        )
        return self._read(lambda connection: list(connection.scalars(query)))

    def remember(self, run: StoredRun) -> bool:
        """Store what a finished rollout says; ``False`` when that is known."""
        values = {name: getattr(run, name) for name in StoredRun.__slots__}
        values |= {"outcome": run.outcome.value, "run": run.run or None, "is_learnt": not run.run}

        def store(connection: Connection) -> bool:
            same = CalibrationRun.rollout_id == run.rollout_id
            if connection.scalar(select(CalibrationRun.rollout_id).where(same)) is not None:
                return False
            connection.execute(insert(CalibrationRun).values(values))
            return True

        return self._write(store)

    def unlearnt(self) -> dict[Place, list[str]]:
        """Remembered rollouts from which nobody has tried to learn, by place."""
        table = CalibrationRun
        query = select(table.service, table.environment, table.interval_s, table.rollout_id)
        rows = self._read(lambda each: each.execute(query.where(table.is_learnt.is_(False))).all())
        found: dict[Place, list[str]] = {}
        for service, environment, interval_s, rollout_id in rows:
            place = Place(service=service, environment=environment, interval_s=interval_s)
            found.setdefault(place, []).append(rollout_id)
        return found

    def mark_learnt(self, rollout_ids: Sequence[str]) -> None:
        """Say that a calibration was tried with these."""
        are_these = CalibrationRun.rollout_id.in_(rollout_ids)
        self._write(
            lambda connection: (
                connection.execute(update(CalibrationRun).where(are_these).values(is_learnt=True)).rowcount
            )
        )

    def runs(
        self, place: Place, *, since: float, limit: int, is_healthy: bool | None = None
    ) -> list[StoredRun]:
        """The newest rollouts that say something and ended after ``since``, newest first."""
        table = CalibrationRun
        query = _of_place(select(table), table, place).where(table.run.is_not(None), table.at > since)
        if is_healthy is not None:
            query = query.where(table.is_healthy.is_(is_healthy))
        query = query.order_by(table.at.desc(), table.rollout_id.desc()).limit(limit)
        return [_run(row) for row in self._read(lambda connection: connection.execute(query).all())]

    def add(self, place: Place, calibration: Calibration) -> StoredCalibration | None:
        """Store a new version; ``None`` when the newest one says the same."""
        table = CalibrationVersion
        of_service = (table.service == place.service) & (table.environment == place.environment)

        def store(connection: Connection) -> StoredCalibration | None:
            query = _of_place(select(table), table, place).order_by(table.version.desc()).limit(1)
            newest = connection.execute(query).one_or_none()
            if newest is not None and _says_the_same(_calibration(newest.calibration), calibration):
                return None
            version = (connection.scalar(select(func.max(table.version)).where(of_service)) or 0) + 1
            connection.execute(
                insert(table).values(
                    service=place.service,
                    environment=place.environment,
                    interval_s=place.interval_s,
                    version=version,
                    tier=calibration.tier.value,
                    runs=calibration.runs,
                    at=calibration.learnt_at,
                    calibration=json_text(calibration),
                )
            )
            return StoredCalibration(
                service=place.service,
                environment=place.environment,
                version=version,
                at=calibration.learnt_at,
                calibration=calibration,
            )

        return self._write(store)

    def _read(self, ask: Callable[[Connection], T]) -> T:
        with reading(self._engine) as connection:
            return ask(connection)

    def _write(self, store: Callable[[Connection], T]) -> T:
        return write_past_races(self._engine, store)


def _says_the_same(one: Calibration, other: Calibration) -> bool:
    return replace(one, learnt_at=0.0) == replace(other, learnt_at=0.0)


def _of_place(query: Select[Any], table: Any, place: Place) -> Select[Any]:
    return query.where(
        table.service == place.service,
        table.environment == place.environment,
        table.interval_s == place.interval_s,
    )


def _version(row: Row[Any]) -> StoredCalibration:
    return StoredCalibration(
        service=row.service,
        environment=row.environment,
        version=row.version,
        at=row.at,
        calibration=_calibration(row.calibration),
    )


def _run(row: Row[Any]) -> StoredRun:
    return StoredRun(
        rollout_id=row.rollout_id,
        service=row.service,
        environment=row.environment,
        interval_s=row.interval_s,
        outcome=Phase(row.outcome),
        is_healthy=bool(row.is_healthy),
        at=row.at,
        run=row.run or b"",
    )
