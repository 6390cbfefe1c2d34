"""Compiled numerical functions, with types that a checker can follow.

Numba compiles them once and keeps the result beside the file (or in the user's cache directory when that is
not writable); without fast-math, so that the same inputs give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """``function``, compiled at its first call for the types it is called with."""
    return cast(F, numba.njit(cache=True, error_model="numpy", nogil=True)(function))
