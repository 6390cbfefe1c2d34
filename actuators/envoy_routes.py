"""Envoy's routes as a document: reading a split out of it and writing one into it. Pure.

The document is what Envoy's route discovery reads from a file: ``{"version_info", "resources": [route
configuration]}``. Ours in it are the weights of one route, a route called ``sentra-match`` before it, the
version and ``metadata.filter_metadata.sentra`` (who wrote what, so that a stranger's edit shows). Everything
else is carried over as it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from actuators.base import Fence
from domain.errors import TargetNotFound
from domain.policy import MatchRule
from domain.units import FULL_BP

MATCH_ROUTE = "sentra-match"
"""Name of the route that shows the canary to chosen requests."""

METADATA = "sentra"
"""Our name under ``filter_metadata``."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """How the target is called inside the document."""

    configuration: str
    stable: str
    """The cluster of the stable version."""
    canary: str
    weighted_route: str = ""
    """Name of the route to split, needed only where several lead to these clusters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What Sentra noted in the document when it last wrote."""

    fence: Fence
    op_id: str
    weights: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """One state of the document, with what it says about the target."""

    text: bytes
    document: Json
    version: str
    token: str
    """The version and a digest of the bytes: also an edit that kept the version changes it."""
    weights: dict[str, int]
    """Cluster to basis points."""
    written: Written | None
    match_active: bool
    runtime_prefix: str
    """Set when Envoy takes the weights from its runtime and not from here."""

    @property
    def fence(self) -> Fence | None:
        """Who wrote last; a version of the form ``<epoch>.<seq>`` counts even where our note is gone."""
        epoch, _ = parse_version(self.version)
        if self.written is not None and self.written.fence.epoch >= epoch:
            return self.written.fence
        return Fence(owner="", epoch=epoch) if epoch else None

    def canary_bp(self, names: Names) -> int | None:
        """The canary's weight, or ``None`` when a third cluster has traffic."""
        others = [bp for name, bp in self.weights.items() if bp and name not in (names.stable, names.canary)]
        return None if others else self.weights.get(names.canary, 0)

    def foreign(self, names: Names) -> str:
        """What somebody else changed of ours, in a sentence."""
        if self.canary_bp(names) is None:
            return f"another cluster has traffic as well: {self.weights}"
        if self.written is not None and _positive(self.written.weights) != _positive(self.weights):
            return f"the weights were changed from {self.written.weights} to {self.weights} by somebody else"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What the document shall say."""

    weights: Mapping[str, int]
    """Cluster to basis points; clusters that are not named are kept at 0 if they were there."""
    dropped: frozenset[str]
    """Clusters that shall not be named any more."""
    match: MatchRule
    fence: Fence
    op_id: str


def parse(text: bytes, names: Names) -> Routes:
    """Read the document.

    Raises
    ------
    TargetNotFound
        It is no route discovery document, or it does not hold the target.
    """
    try:
        document = json.loads(text)
        version = str(document.get("version_info", ""))
        configuration = _configuration(document, names)
        route = _weighted_route(configuration, names)
        return Routes(
            text=text,
            document=document,
            version=version,
            token=f"{version}:{sha256(text).hexdigest()[:8]}",
            weights=_weights(route),
            written=_written(configuration),
            match_active=any(map(_is_ours, _routes(configuration))),
            runtime_prefix=str(route["route"].get("weighted_clusters", {}).get("runtime_key_prefix", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise TargetNotFound(f"the routes file is not what Envoy's route discovery reads: {exc!r}") from exc


def rewrite(routes: Routes, names: Names, change: Change) -> bytes:
    """The document with ``change`` in it and the next version, ready to be written."""
    document = deepcopy(routes.document)
    configuration = _configuration(document, names)
    for host in configuration["virtual_hosts"]:
        host["routes"] = [route for route in host.get("routes", []) if not _is_ours(route)]
    route = _weighted_route(configuration, names)
    _set_weights(route, change)
    if change.match:
        _insert_before(configuration, route, _match_route(route, names.canary, change.match))
    _note(configuration, change)
    document["version_info"] = next_version(routes.version, change.fence.epoch)
    return json.dumps(document, indent=1, ensure_ascii=False).encode()


def says(routes: Routes, names: Names, change: Change) -> bool:
    """Whether the document already says what ``change`` asks for, under the same fence."""
    if routes.written is None or routes.written.fence != change.fence:
        return False
    target = json.loads(rewrite(routes, names, change))
    ours, theirs = _essence(target, names), _essence(routes.document, names)
    return ours == theirs


def parse_version(version: str) -> tuple[int, int]:
    """Epoch and sequence number; ``(0, 0)`` for a version that is not ours.

    >>> parse_version("3.14"), parse_version("2026-blue")
    ((3, 14), (0, 0))
    """
    found = re.fullmatch(r"(\d{1,18})\.(\d{1,18})", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def next_version(version: str, epoch: int) -> str:
    """The version that follows under ``epoch``.

    >>> next_version("3.14", 3), next_version("3.14", 4), next_version("", 1)
    ('3.15', '4.1', '1.1')
    """
    held, seq = parse_version(version)
    return f"{epoch}.{seq + 1 if held == epoch else 1}"


def strangers(document: Json) -> Json:
    """The document without what is Sentra's: equal before and after every write."""
    rest = deepcopy(document)
    rest.pop("version_info", None)
    for configuration in rest["resources"]:
        configuration.pop("metadata", None) if _only_ours(configuration) else _drop_note(configuration)
        for host in configuration["virtual_hosts"]:
            host["routes"] = [route for route in host.get("routes", []) if not _is_ours(route)]
            for route in host["routes"]:
                route.get("route", {}).get("weighted_clusters", {}).pop("clusters", None)
    return rest


def _configuration(document: Json, names: Names) -> Json:
    found: list[Json] = [each for each in document["resources"] if each.get("name") == names.configuration]
    if len(found) != 1:
        known = ", ".join(sorted(str(each.get("name")) for each in document["resources"])) or "none"
        raise TargetNotFound(f"the routes file holds no route configuration {names.configuration!r}: {known}")
    return found[0]


def _routes(configuration: Json) -> Iterator[Json]:
    for host in configuration["virtual_hosts"]:
        yield from host.get("routes", [])


def _is_ours(route: Json) -> bool:
    return route.get("name") == MATCH_ROUTE


def _weighted_route(configuration: Json, names: Names) -> Json:
    """The one route whose traffic is split. One with weights goes before one that names stable alone."""
    routes = [route for route in _routes(configuration) if not _is_ours(route)]
    if names.weighted_route:
        named = [route for route in routes if route.get("name") == names.weighted_route]
        return _only(named, f"route called {names.weighted_route!r}")
    split = [route for route in routes if {names.stable, names.canary} & set(_clusters(route))]
    plain = [route for route in routes if route.get("route", {}).get("cluster") == names.stable]
    return _only(split or plain, f"route to {names.stable}")


def _only(routes: list[Json], what: str) -> Json:
    if len(routes) != 1:
        hint = "" if not routes else "; name the one to split and say so in traffic.target.weighted_route"
        raise TargetNotFound(f"the routes file holds {len(routes)} times a {what}, expected one{hint}")
    return routes[0]


def _clusters(route: Json) -> list[str]:
    entries = route.get("route", {}).get("weighted_clusters", {}).get("clusters", [])
    return [str(entry.get("name")) for entry in entries]


def _weights(route: Json) -> dict[str, int]:
    """Basis points per cluster; the numbers in the document may sum to anything above 0."""
    action = route["route"]
    if "weighted_clusters" not in action:
        return {action["cluster"]: FULL_BP}
    numbers = {
        str(each["name"]): int(each.get("weight", 0)) for each in action["weighted_clusters"]["clusters"]
    }
    total = sum(numbers.values())
    if total <= 0:
        raise ValueError(f"the weights sum to {total}")
    return {name: round(number * FULL_BP / total) for name, number in numbers.items()}


def _set_weights(route: Json, change: Change) -> None:
    """Write the weights so that they sum to 10000, each entry with whatever else it carries."""
    action = route["route"]
    action.pop("cluster", None)
    weighted = action.setdefault("weighted_clusters", {})
    entries: list[Json] = weighted.setdefault("clusters", [])
    present = {entry["name"] for entry in entries}
    entries += [{"name": name} for name in change.weights if name not in present]
    weighted["clusters"] = [entry for entry in entries if entry["name"] not in change.dropped]
    for entry in weighted["clusters"]:
        entry["weight"] = change.weights.get(entry["name"], 0)
    if "total_weight" in weighted:
        weighted["total_weight"] = FULL_BP


def _insert_before(configuration: Json, route: Json, new: Json) -> None:
    for host in configuration["virtual_hosts"]:
        for index, each in enumerate(host.get("routes", [])):
            if each is route:
                host["routes"].insert(index, new)
                return


def _match_route(route: Json, canary: str, match: MatchRule) -> Json:
    """A copy of the split route that takes chosen requests only, all to the canary."""
    copy = {"name": MATCH_ROUTE, "match": deepcopy(route["match"]), "route": deepcopy(route["route"])}
    copy["route"].pop("weighted_clusters")
    copy["route"]["cluster"] = canary
    conditions = [
        {"name": name, "string_match": {"exact": value}} for name, value in sorted(match.headers.items())
    ]
    conditions += [_cookie(name, value) for name, value in sorted(match.cookies.items())]
    copy["match"]["headers"] = [*copy["match"].get("headers", []), *conditions]
    if match.path:
        for key in ("path", "safe_regex", "path_separated_prefix", "connect_matcher"):
            copy["match"].pop(key, None)
        copy["match"]["prefix"] = match.path
    return copy


def _cookie(name: str, value: str) -> Json:
    """One cookie among others: anchored, since a loose pattern also takes ``xname=value``."""
    pattern = rf"(.*;\s*)?{re.escape(name)}={re.escape(value)}(\s*;.*)?"
    return {"name": "cookie", "string_match": {"safe_regex": {"regex": pattern}}}


def _note(configuration: Json, change: Change) -> None:
    kinds = configuration.setdefault("metadata", {}).setdefault("filter_metadata", {})
    kinds[METADATA] = {
        "owner": change.fence.owner,
        "epoch": change.fence.epoch,
        "op": change.op_id,
        "weights": {name: bp for name, bp in change.weights.items() if bp},
    }


def _written(configuration: Json) -> Written | None:
    note = configuration.get("metadata", {}).get("filter_metadata", {}).get(METADATA)
    if note is None:
        return None
    return Written(
        fence=Fence(owner=str(note["owner"]), epoch=int(note["epoch"])),
        op_id=str(note["op"]),
        weights={str(name): int(bp) for name, bp in note["weights"].items()},
    )


def _positive(weights: Mapping[str, int]) -> dict[str, int]:
    return {name: bp for name, bp in weights.items() if bp}


def _essence(document: Json, names: Names) -> Json:
    """The document without what changes with every write."""
    copy = deepcopy(document)
    copy.pop("version_info", None)
    configuration = _configuration(copy, names)
    configuration["metadata"]["filter_metadata"][METADATA].pop("op", None)
    return copy


def _only_ours(configuration: Json) -> bool:
    return list(configuration.get("metadata", {}).get("filter_metadata", {})) == [METADATA]


def _drop_note(configuration: Json) -> None:
    configuration.get("metadata", {}).get("filter_metadata", {}).pop(METADATA, None)
