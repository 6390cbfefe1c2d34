"""Effects that one arm or pod has alone: how a healthy canary differs from its comparator, and regressions.

Pods are numbered canary first: 2 of the canary, then 5 and 5 of stable. Traffic is even within an arm, so an
arm's factor is the mean of its pods' factors, and pods' factors have the mean 1 over all pods and times
(wandering ones the mean log 0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bench.judging.cells import STEP_TICKS, TICK_S, Floats
from bench.judging.services import ARMS, Span

CANARY_PODS = 2
HALF_PODS = 5
PODS = CANARY_PODS + 2 * HALF_PODS

_SLICES = (
    slice(0, CANARY_PODS),
    slice(CANARY_PODS, CANARY_PODS + HALF_PODS),
    slice(CANARY_PODS + HALF_PODS, PODS),
)


def by_arm(pods: Floats) -> Floats:
    """Mean factors per arm from factors per pod on the last axis."""
    return np.stack([pods[..., chosen].mean(axis=-1) for chosen in _SLICES], axis=-1)


@dataclass(frozen=True, slots=True)
class Pods:
    """Every pod has a log-normal factor of its own that stays for the whole run."""

    log_sd: float = 0.3

    def factors(self, rng: np.random.Generator, span: Span) -> Floats:
        logs = rng.normal(-(self.log_sd**2) / 2, self.log_sd, (span.rollouts, 1, PODS))
        return by_arm(np.exp(logs))


@dataclass(frozen=True, slots=True)
class TwoPointPods:
    """A few pods are bad neighbours: ``high`` times the usual rate with the given chance, the others less."""

    high: float = 1.8
    chance: float = 0.15

    def factors(self, rng: np.random.Generator, span: Span) -> Floats:
        low = (1.0 - self.chance * self.high) / (1.0 - self.chance)
        is_high = rng.random((span.rollouts, 1, PODS)) < self.chance
        return by_arm(np.where(is_high, self.high, low))


@dataclass(frozen=True, slots=True)
class WanderingPods:
    """Every pod's log factor is an AR(1) process, so arms stay apart for a while and come together again.

    ``ratio_sd`` is the standard deviation of the log ratio canary by stable: with 2 and 10 pods it is
    sqrt(1/2 + 1/10) times a pod's. Half against half then has ``ratio_sd`` / 1.22. An arm's log factor is
    the mean of its pods' (which is AR(1) again, so arms are drawn at once), and its own mean is 0: the log
    ratio of a healthy canary is a centred Gaussian process.
    """

    ratio_sd: float = 0.3
    seconds: float = 100.0
    """Correlation time: after that long the correlation is 1/e."""

    def factors(self, rng: np.random.Generator, span: Span) -> Floats:
        pod_sd = self.ratio_sd / math.sqrt(1.0 / CANARY_PODS + 1.0 / (2 * HALF_PODS))
        keep = math.exp(-TICK_S / self.seconds)
        noise = rng.standard_normal((span.total, span.rollouts, ARMS))
        noise[1:] *= math.sqrt(1.0 - keep**2)
        for tick in range(1, span.total):
            noise[tick] += keep * noise[tick - 1]
        logs = noise * pod_sd / np.sqrt([CANARY_PODS, HALF_PODS, HALF_PODS])
        return np.transpose(np.exp(logs), (1, 0, 2))


@dataclass(frozen=True, slots=True)
class TelegraphArms:
    """Every arm jumps between two levels at random times; smaller jumps where more pods average out."""

    log_size: float = 0.25
    """The canary's levels are exp(+-log_size), about a mean of 1."""
    seconds: float = 100.0
    """Mean stay on a level."""

    def factors(self, rng: np.random.Generator, span: Span) -> Floats:
        half = self.log_size * math.sqrt(CANARY_PODS / HALF_PODS)
        sizes = np.array([self.log_size, half, half])
        jumps = rng.random((span.rollouts, span.total, ARMS)) < TICK_S / self.seconds
        begins_high = rng.random((span.rollouts, 1, ARMS)) < 0.5
        signs = np.where((np.cumsum(jumps, axis=1) + begins_high) % 2 == 1, 1.0, -1.0)
        factors: Floats = np.exp(signs * sizes) / np.cosh(sizes)
        return factors


@dataclass(frozen=True, slots=True)
class ColdStart:
    """New pods fail more often at first: in the first step, or at each step because each adds pods."""

    ratio: float = 4.0
    seconds: float = 30.0
    every_step: bool = False

    def factors(self, rng: np.random.Generator, span: Span) -> Floats:
        tick = span.ticks_from_start()
        age = tick % STEP_TICKS if self.every_step else tick
        is_cold = (tick >= 0) & (age < round(self.seconds / TICK_S))
        return _on_canary(np.where(is_cold, self.ratio, 1.0)[None, :])


@dataclass(frozen=True, slots=True)
class RandomColdStart:
    """A cold first step in half of the rollouts only, of random strength and length."""

    chance: float = 0.5
    ratios: tuple[float, float] = (2.0, 8.0)
    """Log-uniform between these."""
    seconds: tuple[float, float] = (10.0, 60.0)
    """Uniform between these."""

    def factors(self, rng: np.random.Generator, span: Span) -> Floats:
        least, most = self.ratios
        is_cold = rng.random((span.rollouts, 1)) < self.chance
        ratio = np.exp(rng.uniform(math.log(least), math.log(most), (span.rollouts, 1)))
        end = np.round(rng.uniform(*self.seconds, (span.rollouts, 1)) / TICK_S)
        tick = span.ticks_from_start()[None, :]
        return _on_canary(np.where(is_cold & (tick >= 0) & (tick < end), ratio, 1.0))


@dataclass(frozen=True, slots=True)
class Leak:
    """Pods fail more often the older they are, until they restart: stable at any age, the canary from new."""

    log_size: float = 0.4
    """Growth of the log factor over a pod's life."""
    life_s: float = 1500.0

    def factors(self, rng: np.random.Generator, span: Span) -> Floats:
        age = rng.random((span.rollouts, 1, PODS))
        age[..., :CANARY_PODS] = 0.0
        way = (age + span.ticks_from_start()[None, :, None] * TICK_S / self.life_s) % 1.0
        mean = math.expm1(self.log_size) / self.log_size
        return by_arm(np.exp(self.log_size * way) / mean)


@dataclass(frozen=True, slots=True)
class Regression:
    """A worse version: the canary fails ``ratio`` times as often from tick ``onset`` on."""

    ratio: float
    onset: int = 0

    def factors(self, rng: np.random.Generator, span: Span) -> Floats:
        is_worse = span.ticks_from_start() >= self.onset
        return _on_canary(np.where(is_worse, self.ratio, 1.0)[None, :])


def _on_canary(factors: Floats) -> Floats:
    """Factors (…, ticks) of the canary with 1 for both halves of stable."""
    ones = np.ones_like(factors)
    return np.stack([factors, ones, ones], axis=-1)
