"""Kayenta's NetflixACAJudge: one metric's control against its experiment, classified.

Pass unless the whole confidence interval of the shift lies further out than a quarter of the estimated shift,
and the effect is as large as allowed. Two things differ from Kayenta, and change no verdict that is stable
there: two constant samples get *fixed* normal noise (Kayenta's is unseeded), and percentiles are numpy's.

Source: spinnaker/kayenta, ``NetflixACAJudge.scala``, ``MannWhitneyClassifier.scala``; restated.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from bench.judging.cells import Floats
from bench.judging.kayenta_mann_whitney import ROOT_TOLERANCE, Shift, shift

NOISE = 1e-5
"""Standard deviation of the noise given to constant samples, as a share of their value."""


class Label(Enum):
    """A metric's classification."""

    PASS = "Pass"
    HIGH = "High"
    LOW = "Low"
    NODATA = "Nodata"
    NODATA_FAIL_METRIC = "NodataFailMetric"
    ERROR = "Error"


class Direction(Enum):
    INCREASE = "increase"
    DECREASE = "decrease"
    EITHER = "either"


class Missing(Enum):
    """What becomes of NaN."""

    REMOVE = "remove"
    REPLACE = "replace"


class Effect(Enum):
    MEAN_RATIO = "meanRatio"
    CLES = "cles"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of one metric. The defaults are the product's; there tolerance and confidence cannot be changed."""

    tolerance: float = 0.25
    confidence: float = 0.98
    direction: Direction = Direction.EITHER
    missing: Missing = Missing.REMOVE
    outlier_factor: float | None = None
    """Fences in interquartile ranges; ``None`` keeps outliers."""
    critical: bool = False
    must_have_data: bool = False
    effect: Effect = Effect.MEAN_RATIO
    allowed: tuple[float, float] | None = None
    """Largest decrease and smallest increase that count; ``None``: every one."""
    critical_at: tuple[float, float] | None = None
    root_tolerance: float = ROOT_TOLERANCE

    @property
    def no_effect(self) -> float:
        return 0.5 if self.effect is Effect.CLES else 1.0

    @property
    def effects(self) -> tuple[float, float]:
        return self.allowed or (self.no_effect, self.no_effect)

    @property
    def critical_effects(self) -> tuple[float, float]:
        return self.critical_at or (self.no_effect, self.no_effect)


@dataclass(frozen=True, slots=True)
class Classification:
    label: Label
    critical: bool = False
    """Whether it fails the canary whatever the other metrics say."""


def judge(control: Floats, experiment: Floats, settings: Settings) -> Classification:
    """Clean both samples, then classify. Empty samples and NaN are allowed."""
    return classify(_clean(control, settings), _clean(experiment, settings), settings)


def classify(control: Floats, experiment: Floats, settings: Settings) -> Classification:
    """Classify two samples without NaN."""
    if not control.size or not experiment.size:
        return _without_data(settings)
    if control.size == experiment.size and np.array_equal(np.sort(control), np.sort(experiment)):
        return Classification(Label.PASS)
    if np.unique(np.concatenate([control, experiment])).size == 1:
        return Classification(Label.PASS)
    if _is_constant(control) and _is_constant(experiment):
        control, experiment = _noisy(control), _noisy(experiment)
    found = shift(experiment, control, settings.confidence, settings.root_tolerance)
    effect = effect_size(control, experiment, settings.effect)
    label = _label(found, effect, settings)
    return Classification(label, settings.critical and _is_critical(label, effect, settings))


def _without_data(settings: Settings) -> Classification:
    if settings.missing is Missing.REPLACE:
        return Classification(Label.PASS)
    if settings.must_have_data and not settings.critical:
        return Classification(Label.NODATA_FAIL_METRIC)
    return Classification(Label.NODATA, settings.critical)


def _label(found: Shift, effect: float, settings: Settings) -> Label:
    bound = settings.tolerance * abs(found.estimate)
    decrease, increase = settings.effects
    up, down = settings.direction is not Direction.DECREASE, settings.direction is not Direction.INCREASE
    if up and found.low > bound and not effect < increase:
        return Label.HIGH
    if down and found.high < -bound and not effect > decrease:
        return Label.LOW
    return Label.PASS


def _is_critical(label: Label, effect: float, settings: Settings) -> bool:
    """An effect that cannot be computed (NaN) is critical."""
    decrease, increase = settings.critical_effects
    if label is Label.HIGH:
        return not effect < increase
    return label is Label.LOW and not effect > decrease


def effect_size(control: Floats, experiment: Floats, measure: Effect) -> float:
    """Mean ratio (NaN when a mean is 0), or the share of pairs in which the experiment is higher."""
    if measure is Effect.CLES:
        above = np.sign(experiment[:, None] - control[None, :])
        return float((above.mean() + 1) / 2)
    below, above_mean = float(control.mean()), float(experiment.mean())
    return above_mean / below if below and above_mean else float("nan")


def outliers(values: Floats, factor: float) -> NDArray[np.bool_]:
    """Beyond the quartiles by ``factor`` interquartile ranges *and* beyond the outer hundredths."""
    p01, p25, p75, p99 = np.percentile(values, [1, 25, 75, 99])
    reach = factor * (p75 - p25)
    return np.asarray((values < min(p01, p25 - reach)) | (values > max(p99, p75 + reach)))


def _clean(values: Floats, settings: Settings) -> Floats:
    if settings.missing is Missing.REPLACE:
        kept = np.where(np.isnan(values), 0.0, values)
    else:
        kept = values[~np.isnan(values)]
    if settings.outlier_factor is None or not kept.size:
        return kept
    return kept[~outliers(kept, settings.outlier_factor)]


def _is_constant(values: Floats) -> bool:
    return bool(values.min() == values.max())


def _noisy(values: Floats) -> Floats:
    """``values`` spread like a normal sample of their size; zeros stay zeros, as with Kayenta."""
    normal = NormalDist()
    spread = [normal.inv_cdf((rank + 0.5) / values.size) for rank in range(values.size)]
    noisy: Floats = values + values * NOISE * np.array(spread)
    return noisy
