"""Who owns what, and since which epoch: leases on partitions and targets.

Rule: an epoch never goes down and no two reigns share one. Every `acquire` is a new reign with a new epoch,
even by the same owner; only `renew` prolongs one. Each change is one compare-and-set on the row, and rows are
never deleted, so that a released key remembers its epoch. Time is the caller's: a holder stops acting before
its lease ends by its own clock, and everything it writes carries the epoch, which is what protects at last.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, insert, select, update

from store.database import reading, writing
from store.errors import Duplicate
from store.models import LeaseRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One reign over ``key``. ``expires_at`` is in seconds since the epoch, UTC."""

    key: str
    owner: str
    epoch: int
    expires_at: float


class Leases:
    """The lease table. All methods raise :class:`StoreUnavailable` when the database cannot be asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def acquire(self, key: str, owner: str, *, ttl_s: float, now: float, floor: int = 0) -> Lease | None:
        """A new reign of ``ttl_s`` seconds, or ``None`` while somebody else holds the key.

        ``floor`` is the highest epoch seen in the resource itself: the new one lies above it.
        """
        try:
            with writing(self._engine) as connection:
                row = connection.execute(select(LeaseRow).where(LeaseRow.key == key)).one_or_none()
                seen = 0 if row is None else row.epoch
                lease = Lease(key=key, owner=owner, epoch=max(seen, floor) + 1, expires_at=now + ttl_s)
                values = {"owner": owner, "epoch": lease.epoch, "expires_at": lease.expires_at}
                if row is None:
                    connection.execute(insert(LeaseRow).values(key=key, **values))
                    return lease
                if row.owner not in ("", owner) and row.expires_at > now:
                    return None
                unchanged = (LeaseRow.key == key) & (LeaseRow.epoch == seen)
                changed = connection.execute(update(LeaseRow).where(unchanged).values(**values))
                return lease if changed.rowcount else None
        except Duplicate:
            return None  # somebody else made the row between our look and our write

    def renew(self, lease: Lease, *, ttl_s: float, now: float) -> Lease | None:
        """The same reign, ``ttl_s`` seconds from ``now``; ``None`` when it is over."""
        longer = Lease(key=lease.key, owner=lease.owner, epoch=lease.epoch, expires_at=now + ttl_s)
        return longer if self._change(lease, lease.owner, longer.expires_at) else None

    def release(self, lease: Lease) -> bool:
        """End a reign so that the next need not wait. ``False`` when it was over already."""
        return self._change(lease, "", 0.0)

    def _change(self, lease: Lease, owner: str, expires_at: float) -> bool:
        mine = (LeaseRow.key == lease.key) & (LeaseRow.owner == lease.owner) & (LeaseRow.epoch == lease.epoch)
        with writing(self._engine) as connection:
            changed = connection.execute(
                update(LeaseRow).where(mine).values(owner=owner, expires_at=expires_at)
            )
            return bool(changed.rowcount)

    def epoch_of(self, key: str) -> int:
        """The highest epoch ever given for ``key``; 0 when there was none."""
        with reading(self._engine) as connection:
            return connection.scalar(select(LeaseRow.epoch).where(LeaseRow.key == key)) or 0

    def holder_of(self, key: str, *, now: float) -> Lease | None:
        """Whoever holds ``key`` now."""
        with reading(self._engine) as connection:
            row = connection.execute(select(LeaseRow).where(LeaseRow.key == key)).one_or_none()
        if row is None or row.owner == "" or row.expires_at <= now:
            return None
        return Lease(key=row.key, owner=row.owner, epoch=row.epoch, expires_at=row.expires_at)
