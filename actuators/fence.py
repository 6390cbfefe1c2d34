"""Who may write: the fence rules, pure.

Every target has one lease whose epoch rises with each new holder; the epoch travels into the resource with
every write. So a controller that was frozen and comes back finds a higher epoch there and stops, however sure
it is of itself. Equal epochs with different owners mean that the lease was broken: that stops as well.
"""

from __future__ import annotations

from actuators.base import Fence
from domain.errors import Fenced


def check_fence(held: Fence | None, mine: Fence) -> None:
    """Return if ``mine`` may write over what ``held`` wrote last.

    Raises
    ------
    Fenced
        A newer epoch, or the same one of another owner, was there before.
    """
    if held is None or held.epoch < mine.epoch or held == mine:
        return
    if held.epoch > mine.epoch:
        raise Fenced(
            f"{held.owner or 'another controller'} owns the target with epoch {held.epoch}, newer than our "
            f"{mine.epoch}; this controller stops"
        )
    raise Fenced(
        f"epoch {mine.epoch} of the target is held by {held.owner!r} and by {mine.owner!r}; this controller "
        "stops: one of the two did not take it from the lease"
    )


def floor_for(held: Fence | None) -> int:
    """The lowest epoch a new lease holder may get so that the resource lets it write.

    Matters when the lease table was lost but the resource still remembers.
    """
    return 1 if held is None else held.epoch + 1
