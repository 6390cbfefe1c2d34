"""Names lead to adapters, and unknown ones to a list of the known."""

from __future__ import annotations

import pytest

from actuators.base import Binding
from actuators.registry import ADAPTERS, open_adapter
from domain.errors import ConfigError

ENVOY = {"rds": "/tmp/routes.json", "admin": "http://127.0.0.1:9901"}
TARGETS: dict[str, dict[str, str]] = {"envoy": ENVOY, "memory": {}}


@pytest.mark.parametrize("name", ADAPTERS)
async def test_every_registered_adapter_opens_under_its_name(name: str) -> None:
    adapter = open_adapter(name, Binding(service="s", stable="v1", canary="v2", target=TARGETS[name]))
    assert adapter.name == name
    await adapter.aclose()


def test_an_unknown_adapter_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no traffic adapter 'isto'; known are envoy, memory"):
        open_adapter("isto", Binding(service="s", stable="v1", canary="v2"))


def test_an_adapter_whose_sdk_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, "cloud", "no_such_sdk_anywhere:Adapter")
    with pytest.raises(ConfigError, match="needs no_such_sdk_anywhere"):
        open_adapter("cloud", Binding(service="s", stable="v1", canary="v2"))


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ({"admin": "http://x"}, "traffic.target.rds is missing"),
        ({**ENVOY, "rsd": "x"}, "traffic.target.rsd is unknown; known are admin, cluster"),
        ({**ENVOY, "cluster": "{servce}-{version}"}, "may use {service}, {version} and {env} only"),
    ],
)
def test_a_wrong_envoy_target_is_refused_by_key(target: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        open_adapter("envoy", Binding(service="s", stable="v1", canary="v2", target=target))
    assert sentence in str(refusal.value)
