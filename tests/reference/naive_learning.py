"""How healthy rollouts scatter and wander, computed slowly and plainly from the formulas."""

from __future__ import annotations

from itertools import pairwise
from math import ceil, exp, log, sqrt


def dispersion(events: float, bins: list[float]) -> float:
    """phi of a tick: its bin's (1, 2, 3-4, 5-8, ..., 129 and more), at least 1 and at most the events."""
    upper_ends = [1, 2, 4, 8, 16, 32, 64, 128, float("inf")]
    found = next(phi for end, phi in zip(upper_ends, bins, strict=True) if events <= end)
    return max(1.0, min(found, events))


def squares_and_variances(
    s_1: list[float], n_1: list[float], s_2: list[float], n_2: list[float]
) -> list[tuple[float, float]]:
    """By tick of one run, the squared residual from the mean of the ticks around it, and its variance."""
    ticks = len(s_1)
    both = [n_1[t] > 0 and n_2[t] > 0 for t in range(ticks)]
    k = [s_1[t] + s_2[t] if both[t] else 0.0 for t in range(ticks)]
    theta = [n_1[t] / (n_1[t] + n_2[t]) if both[t] else 0.5 for t in range(ticks)]
    r = [s_1[t] - k[t] * theta[t] if both[t] else 0.0 for t in range(ticks)]
    out = []
    for t in range(ticks):
        around = [u for u in range(ticks) if 0 < abs(u - t) <= 6]
        near = sum(k[u] for u in around)
        mean = sum(r[u] for u in around) / (near + 8)
        square = (r[t] - k[t] * mean) ** 2 / (1 + k[t] * near / (near + 8) ** 2)
        out.append((square, k[t] * theta[t] * (1 - theta[t])))
    return out


def dispersions_by_bin(ticks: list[tuple[float, float, float]]) -> list[float]:
    """phi by bin from ticks of (events, square, variance)."""
    found = [1.0]
    ends = [1, 2, 4, 8, 16, 32, 64, 128, float("inf")]
    for lower, upper in pairwise(ends):
        inside = [(square, variance) for events, square, variance in ticks if lower < events <= upper]
        weight = sum(variance for _, variance in inside) + 1
        phi = (sum(square for square, _ in inside) + found[-1]) / weight
        error = sqrt(sum((square - phi * variance) ** 2 for square, variance in inside)) / weight
        bound = max(1.0, phi + error)
        found.append(max(bound, found[-1]) if len(inside) < 50 else bound)
    return found


def dispersion_of_row(ticks: list[tuple[float, float, float]]) -> float:
    """phi of one row of at least ten ticks."""
    inside = [(square, variance) for events, square, variance in ticks if events > 0]
    weight = sum(variance for _, variance in inside)
    phi = sum(square for square, _ in inside) / weight
    error = sqrt(sum((square - phi * variance) ** 2 for square, variance in inside)) / weight
    return max(1.0, phi + 2 * max(error, phi * sqrt(2 / len(inside))))


def null_log_likelihood(
    tau: float,
    kept: float,
    counts: list[tuple[float, float, float, float]],
    rho: list[float],
    bins: list[float],
) -> float:
    """log P(splits of one run) under a log ratio that is AR(1) on the lattice, relative to equal rates."""
    spread = tau * sqrt(1 - kept**2)
    half = ceil(round(32 * tau, 9))
    points = [0.1 * j for j in range(-half, half + 1)]
    belief = _normalised([exp(-(x**2) / (2 * tau**2)) if tau else 1.0 for x in points])
    total = 0.0
    for t, (s_c, n_c, s_b, n_b) in enumerate(counts):
        if t and kept < 1:
            belief = _moved(belief, points, kept, spread)
        k = s_c + s_b
        if k == 0 or n_c == 0 or n_b == 0:
            continue
        a, phi = rho[t] * n_c, dispersion(k, bins)
        likelihoods = [exp((s_c * x + k * log((a + n_b) / (a * exp(x) + n_b))) / phi) for x in points]
        belief = [p * f for p, f in zip(belief, likelihoods, strict=True)]
        total += log(sum(belief))
        belief = _normalised(belief)
    return total


def _moved(belief: list[float], points: list[float], kept: float, spread: float) -> list[float]:
    """One step of the wander: from each point to a band about where it is drawn to."""
    out = [0.0] * len(points)
    half = len(points) // 2
    reach = ceil(round(32 * spread, 9)) + 1
    width = max(spread, 0.03)
    for i, p in enumerate(belief):
        centre = round(kept * (i - half)) + half
        # At the lattice's ends the band keeps its size and is pushed inwards.
        size = min(2 * reach + 1, len(points))
        first = min(max(centre - reach, 0), len(points) - size)
        band = range(first, first + size)
        chances = _normalised([exp(-((points[j] - kept * points[i]) ** 2) / (2 * width**2)) for j in band])
        for j, chance in zip(band, chances, strict=True):
            out[j] += p * chance
    return out


def _normalised(values: list[float]) -> list[float]:
    total = sum(values)
    return [value / total for value in values]
