"""A worker whose Envoy adapter loses requests with each shift. Takes the arguments of ``sentra worker``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[4]))  # a program of its own: `tests` is not installed

from actuators.base import Binding
from actuators.envoy import EnvoyAdapter
from actuators.registry import ADAPTERS
from sentra.cli.main import run
from tests.actuators.lossy import LossyAdapter


class LossyEnvoy(LossyAdapter):
    """Sends everybody to a cluster that Envoy does not know, before each shift."""

    def __init__(self, binding: Binding) -> None:
        super().__init__(EnvoyAdapter(binding), Path(str(binding.target["rds"])), dead_cluster="nobody")

    def _all_dead(self, good: bytes) -> bytes:
        document = json.loads(super()._all_dead(good))
        document["resources"][0]["validate_clusters"] = False
        return json.dumps(document).encode()


if __name__ == "__main__":
    ADAPTERS["envoy"] = "__main__:LossyEnvoy"
    run()
