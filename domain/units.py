"""Units as users write them, and as Sentra keeps them.

Inside: seconds (float), basis points (int, 0..10000), plain ratios (float). Outside: ``30s``, ``5``, ``1 %``.
"""

from __future__ import annotations

import math
import re

FULL_BP = 10_000
"""All traffic, in basis points."""

_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|m|h|d)")
_SECONDS_PER = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: object) -> float:
    """Seconds from ``"250ms"``, ``"30s"``, ``"15m"``, ``"1h30m"``, ``"2d"``.

    Raises ``ValueError`` for anything else, bare numbers included (their unit would be a guess), except 0.

    >>> parse_duration("1h30m")
    5400.0
    """
    if text == 0 and not isinstance(text, bool):
        return 0.0
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"a duration is a number with a unit (ms, s, m, h, d), such as 30s; got {text!r}")
    total, position, compact = 0.0, 0, text.strip()
    while position < len(compact):
        part = _DURATION.match(compact, position)
        if part is None:
            raise ValueError(
                f"a duration is a number with a unit (ms, s, m, h, d), such as 30s; got {text!r}"
            )
        total += float(part["number"]) * _SECONDS_PER[part["unit"]]
        position = part.end()
    if math.isinf(total):
        raise ValueError(f"a duration must end some day; got {len(compact)} digits")
    return total


def duration_text(seconds: float) -> str:
    """The shortest text that :func:`parse_duration` reads back as about ``seconds``.

    >>> duration_text(90), duration_text(0.25), duration_text(7200)
    ('1m30s', '250ms', '2h')
    """
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0s"
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def check_weight(weight_bp: object) -> int:
    """``weight_bp`` itself, or ``ValueError`` when it is no weight."""
    if isinstance(weight_bp, bool) or not isinstance(weight_bp, int) or not 0 <= weight_bp <= FULL_BP:
        raise ValueError(f"a weight must lie in 0..{FULL_BP} basis points, got {weight_bp!r}")
    return weight_bp


def percent_to_bp(percent: float) -> int:
    """Basis points from percent; refuses what 1 bp cannot express.

    >>> percent_to_bp(12.5)
    1250
    """
    if not math.isfinite(percent):
        raise ValueError(f"a weight must be a number of percent, got {percent}")
    bp = round(percent * 100)
    if abs(bp - percent * 100) > 1e-6:
        raise ValueError(f"a weight must be a multiple of 0.01 %, got {percent} %")
    return check_weight(bp)


def bp_text(weight_bp: int) -> str:
    """A weight as people read it.

    >>> bp_text(500), bp_text(1250)
    ('5 %', '12.5 %')
    """
    return f"{weight_bp / 100:g} %"


def ratio_text(ratio: float) -> str:
    """A ratio as people read it, with the digits that matter.

    >>> ratio_text(0.031), ratio_text(0.0004)
    ('3.1 %', '0.04 %')
    """
    return f"{ratio * 100:.2g} %" if ratio < 0.1 else f"{ratio * 100:.3g} %"
