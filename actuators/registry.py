"""Which adapters there are. A name in a policy leads to a class; its vendor's SDK is imported only then."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from actuators.base import Binding, TrafficAdapter
from domain.errors import ConfigError

ADAPTERS = {
    "envoy": "actuators.envoy:EnvoyAdapter",
    "memory": "actuators.memory:MemoryAdapter",
}
"""Name in ``traffic.adapter`` to ``module:Class``; the class is called with a :class:`Binding`."""


def open_adapter(name: str, binding: Binding) -> TrafficAdapter:
    """The adapter ``name``, bound to one target.

    Raises
    ------
    ConfigError
        No such adapter, its SDK is not installed, or the target's keys are wrong.
    """
    if name not in ADAPTERS:
        raise ConfigError(f"there is no traffic adapter {name!r}; known are {', '.join(sorted(ADAPTERS))}")
    module, _, class_name = ADAPTERS[name].partition(":")
    try:
        found = getattr(import_module(module), class_name)
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"the traffic adapter {name!r} needs {exc.name}: pip install 'sentra[{name}]' or that package"
        ) from exc
    return cast("Callable[[Binding], TrafficAdapter]", found)(binding)
