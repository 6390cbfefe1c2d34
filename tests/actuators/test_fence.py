"""Who may write."""

from __future__ import annotations

import pytest

from actuators.base import Fence
from actuators.fence import check_fence, floor_for
from domain.errors import Fenced

OURS = Fence(owner="a", epoch=5)


@pytest.mark.parametrize("held", [None, Fence(owner="b", epoch=4), OURS])
def test_an_older_epoch_or_our_own_is_no_obstacle(held: Fence | None) -> None:
    check_fence(held, OURS)


@pytest.mark.parametrize("held", [Fence(owner="a", epoch=6), Fence(owner="b", epoch=6)])
def test_a_newer_epoch_stops_us_whoever_holds_it(held: Fence) -> None:
    with pytest.raises(Fenced, match="epoch 6, newer than our 5"):
        check_fence(held, OURS)


def test_an_equal_epoch_of_another_owner_stops_us() -> None:
    with pytest.raises(Fenced, match="held by 'b' and by 'a'"):
        check_fence(Fence(owner="b", epoch=5), OURS)


def test_a_new_reign_lies_above_whatever_the_resource_remembers() -> None:
    assert (floor_for(None), floor_for(OURS)) == (1, 6)
