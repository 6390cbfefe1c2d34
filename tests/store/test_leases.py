"""Leases: one holder, epochs that never go down, and no two reigns with one epoch."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from store.leases import Lease, Leases
from tests.store.examples import T0


@pytest.fixture
def leases(engine: Engine) -> Leases:
    return Leases(engine)


def held(lease: Lease | None) -> Lease:
    assert lease is not None
    return lease


def test_a_key_has_one_holder(leases: Leases) -> None:
    mine = held(leases.acquire("p/0", "a", ttl_s=10, now=T0))
    assert (mine.epoch, mine.expires_at) == (1, T0 + 10)
    assert leases.acquire("p/0", "b", ttl_s=10, now=T0 + 9.9) is None
    assert leases.holder_of("p/0", now=T0 + 9.9) == mine
    assert held(leases.acquire("p/1", "b", ttl_s=10, now=T0)).epoch == 1


def test_a_lease_that_ran_out_goes_to_the_next_with_a_higher_epoch(leases: Leases) -> None:
    mine = held(leases.acquire("p/0", "a", ttl_s=10, now=T0))
    assert leases.holder_of("p/0", now=T0 + 10) is None
    yours = held(leases.acquire("p/0", "b", ttl_s=10, now=T0 + 10))
    assert yours.epoch == 2
    assert leases.renew(mine, ttl_s=10, now=T0 + 11) is None
    assert not leases.release(mine)
    assert leases.holder_of("p/0", now=T0 + 11) == yours


def test_renewing_keeps_the_epoch(leases: Leases) -> None:
    mine = held(leases.acquire("p/0", "a", ttl_s=10, now=T0))
    longer = held(leases.renew(mine, ttl_s=10, now=T0 + 8))
    assert (longer.epoch, longer.expires_at) == (1, T0 + 18)
    assert leases.acquire("p/0", "b", ttl_s=10, now=T0 + 15) is None


def test_a_released_key_is_free_at_once_and_remembers_its_epoch(leases: Leases) -> None:
    mine = held(leases.acquire("p/0", "a", ttl_s=1000, now=T0))
    assert leases.release(mine)
    assert leases.renew(mine, ttl_s=10, now=T0) is None
    assert leases.epoch_of("p/0") == 1
    assert held(leases.acquire("p/0", "b", ttl_s=10, now=T0)).epoch == 2


def test_coming_back_under_the_same_name_is_a_new_reign(leases: Leases) -> None:
    before = held(leases.acquire("p/0", "a", ttl_s=10, now=T0))
    after = held(leases.acquire("p/0", "a", ttl_s=10, now=T0 + 1))
    assert after.epoch == 2
    assert leases.renew(before, ttl_s=10, now=T0 + 1) is None


def test_a_new_epoch_lies_above_what_the_resource_has_seen(leases: Leases) -> None:
    assert leases.epoch_of("t") == 0
    mine = held(leases.acquire("t", "a", ttl_s=10, now=T0, floor=41))
    assert mine.epoch == 42
    leases.release(mine)
    assert held(leases.acquire("t", "a", ttl_s=10, now=T0, floor=7)).epoch == 43


@pytest.mark.parametrize("is_fresh", [True, False], ids=["new key", "known key"])
def test_of_two_owners_who_race_one_holds_and_no_epoch_comes_twice(engine: Engine, is_fresh: bool) -> None:
    if not is_fresh:
        leases = Leases(engine)
        leases.release(held(leases.acquire("p/0", "before", ttl_s=10, now=T0)))
    gate = threading.Barrier(4)

    def race(number: int) -> list[Lease]:
        mine, won = Leases(engine), []
        for turn in range(10):
            gate.wait()
            # Each turn all leases have run out.
            lease = mine.acquire("p/0", f"owner-{number}", ttl_s=1, now=T0 + 10 * turn)
            won += [lease] if lease else []
        return won

    with ThreadPoolExecutor(4) as pool:
        won = [lease for leases in pool.map(race, range(4)) for lease in leases]
    epochs = sorted(lease.epoch for lease in won)
    assert len(set(epochs)) == len(epochs)
    by_turn = {lease.expires_at for lease in won}
    assert len(by_turn) == len(won) == 10
