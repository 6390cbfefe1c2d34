"""The benchmark of shifts: it runs, it finds nothing lost, and its keys are documented."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from bench import actuation


@pytest.mark.server
async def test_a_short_run_loses_nothing_and_documents_every_key(tmp_path: Path) -> None:
    figures = await actuation.measure(tmp_path, shifts=5, rollbacks=2, rps=200.0)
    assert figures.failed_requests == 0
    assert figures.requests > 100
    assert 0 < figures.decision_to_effect_p50_ms <= figures.decision_to_effect_p99_ms
    for key in asdict(figures):
        assert f"``{key}``" in str(actuation.__doc__)
