"""Envoy's admin page, as far as an actuator needs it: which routes are in force, and who got the requests."""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx

from domain.errors import Denied, Transient

TIMEOUT_S = 2.0
"""For one answer of a process on the same machine or network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminState:
    """One look at the statistics."""

    version: str
    """``version_text``: the routes in force; empty before Envoy has read any."""
    refusals: int
    """How often Envoy has refused routes (``update_rejected`` and ``update_failure``) since it started."""
    known: frozenset[str]
    """Those of the clusters asked about that Envoy has."""
    completed: dict[str, float]
    """Requests completed since Envoy started, by cluster; also those that ended in an error."""


class EnvoyAdmin:
    """Reads the statistics of one Envoy.

    ``url`` is its admin page, ``routes`` the prefix ``http.<stat_prefix>.rds.<route configuration>``.
    """

    def __init__(self, url: str, routes: str) -> None:
        self._routes = routes
        self._client = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False, verify=False)

    async def look(self, clusters: tuple[str, ...]) -> AdminState:
        """What is in force, and the counters of ``clusters``.

        Raises
        ------
        Denied
            The admin page wants credentials.
        Transient
            It does not answer, or not with statistics.
        """
        lines = await self._stats(_filter(self._routes, clusters))
        refused = ("update_rejected", "update_failure")
        return AdminState(
            version=lines.get(f"{self._routes}.version_text", "").strip('"'),
            refusals=sum(int(lines.get(f"{self._routes}.{name}", "0")) for name in refused),
            known=frozenset(name for name in clusters if f"cluster.{_flat(name)}.membership_total" in lines),
            completed={
                name: float(lines.get(f"cluster.{_flat(name)}.upstream_rq_completed", "0"))
                for name in clusters
            },
        )

    async def aclose(self) -> None:
        """Close the connection. Safe to repeat."""
        await self._client.aclose()

    async def _stats(self, pattern: str) -> dict[str, str]:
        try:
            answer = await self._client.get("/stats", params={"filter": pattern})
        except httpx.HTTPError as exc:
            raise Transient(f"Envoy's admin page does not answer: {exc!r}") from exc
        if answer.status_code in (401, 403):
            raise Denied(f"Envoy's admin page refuses us with {answer.status_code}")
        if not answer.is_success:
            raise Transient(f"Envoy's admin page answered {answer.status_code}")
        return dict(line.split(": ", 1) for line in answer.text.splitlines() if ": " in line)


def _filter(routes: str, clusters: tuple[str, ...]) -> str:
    names = "|".join(re.escape(_flat(name)) for name in clusters)
    return (
        rf"^({re.escape(routes)}\.(version_text|update_rejected|update_failure)"
        rf"|cluster\.({names})\.(membership_total|upstream_rq_completed))$"
    )


def _flat(name: str) -> str:
    """A cluster's name as it appears in statistics: colons would separate there."""
    return name.replace(":", "_")
