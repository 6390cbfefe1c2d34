"""Moves traffic between two clusters of an Envoy that reads its routes from a file.

A write is: lock the folder, read, compare, write beside, ``fsync``, rename into place, and wait until Envoy's
admin page shows the new version. Envoy keeps its last good routes when it refuses new ones; then the former
file is put back, so that a restart of Envoy meets a file it can load.

Compare-and-set holds among controllers that take the folder's lock (this adapter); everybody else's edit
shows up as drift. The version is ``<epoch>.<sequence>``; owner and operation are in the routes' metadata.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import TypeVar

from actuators import envoy_file, envoy_routes
from actuators.base import (
    Binding,
    Capabilities,
    CasLevel,
    Observed,
    Receipt,
    Served,
    ShiftRequest,
    Split,
    VerifyLevel,
    WriteOutcome,
    check_request,
)
from actuators.envoy_admin import AdminState, EnvoyAdmin
from actuators.envoy_routes import Change, Names, Routes
from actuators.fence import check_fence
from domain.decision import Order
from domain.errors import (
    ActuationError,
    ConfigError,
    Conflict,
    Drift,
    Outcome,
    TargetNotFound,
    Transient,
    VerifyFailed,
)
from domain.policy import MatchRule
from domain.units import FULL_BP

T = TypeVar("T")

TARGET_KEYS = frozenset({"rds", "admin", "route", "stat_prefix", "cluster", "weighted_route"})
LONGEST_WAIT_S = 2.0
"""How long ``apply`` itself waits for Envoy to take the routes up; measured: 3 to 10 ms."""


class EnvoyAdapter:
    """One route of one Envoy.

    Target keys: ``rds`` (the routes file), ``admin`` (URL of the admin page), ``route`` (name of the route
    configuration, default ``sentra``), ``stat_prefix`` (of the listener, default ``ingress``), ``cluster``
    (template of cluster names, default ``{service}_{version}``), ``weighted_route`` (name of the route to
    split, where several lead to the same clusters).

    Raises
    ------
    ConfigError
        A target key is missing or unknown.
    """

    name = "envoy"

    def __init__(self, binding: Binding) -> None:
        target = {key: str(value) for key, value in binding.target.items()}
        _check_target(target)
        self._binding = binding
        self._path = Path(target["rds"])
        route = target.get("route", "sentra")
        self._names = Names(
            configuration=route,
            stable=_cluster(target, binding, binding.stable),
            canary=_cluster(target, binding, binding.canary),
            weighted_route=target.get("weighted_route", ""),
        )
        prefix = target.get("stat_prefix", "ingress")
        self._admin = EnvoyAdmin(target["admin"], f"http.{prefix}.rds.{route}")
        # One thread of its own: a folder that hangs holds up nobody else, and a write that was cancelled ends
        # before the next one begins.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="envoy-routes")

    def capabilities(self) -> Capabilities:
        return Capabilities(
            cas=CasLevel.STRONG,
            verify=VerifyLevel.RECONCILED,
            quantum_bp=1,
            header_match=True,
            cookie_match=True,
            path_match=True,
            lossless=True,
            propagation_p50_s=0.005,
            propagation_max_s=2.0,
        )

    async def preflight(self) -> tuple[str, ...]:
        try:
            routes, admin = await self._in_thread(self._read), await self._look()
        except ActuationError as error:
            return (str(error),)
        return tuple(self._problems(routes, admin))

    async def observe(self) -> Observed:
        routes = await self._in_thread(self._read)
        admin = await self._look()
        bp = routes.canary_bp(self._names)
        return Observed(
            split=None if bp is None else self._split(bp),
            reconciled=admin.version == routes.version,
            token=routes.token,
            fence=routes.fence,
            op_id=routes.written.op_id if routes.written else "",
            match_active=routes.match_active,
            foreign=routes.foreign(self._names),
            problem=self._runtime_problem(routes),
            served=Served(
                stable=admin.completed[self._names.stable], canary=admin.completed[self._names.canary]
            ),
        )

    async def apply(self, request: ShiftRequest) -> Receipt:
        check_request(request, self._binding, self.capabilities(), self.name)
        before = await self._look_before(request)
        change = self._change(request, before)
        in_force = before.version if before else None
        # A cancelled thread still runs to its end; the folder's lock and ``expect`` keep it harmless.
        old, new = await self._in_thread(lambda: self._write(request, change, in_force))
        outcome = WriteOutcome.NOOP if new is None else await self._settle(old, new, before)
        return Receipt(
            op_id=request.op_id,
            outcome=outcome,
            applied_bp=request.split.canary_bp,
            token_before=old.token,
            token_after=(new or old).token,
        )

    async def aclose(self) -> None:
        self._thread.shutdown(wait=False)
        await self._admin.aclose()

    # -- the file ------------------------------------------------------------------------------------------

    def _read(self) -> Routes:
        return envoy_routes.parse(envoy_file.read(self._path), self._names)

    def _write(
        self, request: ShiftRequest, change: Change, in_force: str | None
    ) -> tuple[Routes, Routes | None]:
        """Compare and set. What was there, and what is there now (``None``: it was all so already)."""
        with envoy_file.locked(self._path.parent):
            old = self._read()
            check_fence(old.fence, request.fence)
            self._check_expected(request, old)
            is_settled = in_force is None or in_force == old.version
            if is_settled and envoy_routes.says(old, self._names, change):
                return old, None
            text = envoy_routes.rewrite(old, self._names, change)
            envoy_file.replace(self._path, text)
            return old, envoy_routes.parse(text, self._names)

    def _check_expected(self, request: ShiftRequest, old: Routes) -> None:
        if request.expect and request.expect != old.token:
            raise Conflict(f"expected the routes {request.expect}, found {old.token}")
        foreign = old.foreign(self._names)
        if foreign and not (request.over_drift or request.is_down):
            raise Drift(foreign)

    def _put_back(self, old: Routes, new: Routes) -> bool:
        """Undo a write that Envoy refused, unless somebody wrote since; whether it was undone."""
        with envoy_file.locked(self._path.parent):
            if self._read().token != new.token:
                return False
            envoy_file.replace(self._path, old.text)
            return True

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # -- Envoy ---------------------------------------------------------------------------------------------

    async def _look(self) -> AdminState:
        return await self._admin.look((self._names.stable, self._names.canary))

    async def _look_before(self, request: ShiftRequest) -> AdminState | None:
        """The state before a write. Going down works without the admin page: the file is enough."""
        try:
            before = await self._look()
        except ActuationError:
            if request.is_down:
                return None
            raise
        needed = {self._names.stable} if request.is_down else {self._names.stable, self._names.canary}
        for missing in sorted(needed - before.known):
            raise TargetNotFound(f"Envoy has no cluster {missing!r}; the routes stay as they are")
        return before

    async def _settle(self, old: Routes, new: Routes, before: AdminState | None) -> WriteOutcome:
        """Wait for Envoy to take the routes up or to refuse them."""
        deadline, pause = monotonic() + LONGEST_WAIT_S, 0.002
        while before is not None and monotonic() < deadline:
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.1)
            try:
                now = await self._look()
            except Transient:
                continue
            if now.version == new.version:
                return WriteOutcome.APPLIED
            if now.refusals > before.refusals:
                await self._refused(old, new)
        return WriteOutcome.PENDING

    async def _refused(self, old: Routes, new: Routes) -> None:
        if not await self._in_thread(lambda: self._put_back(old, new)):
            raise VerifyFailed("Envoy refused routes, and somebody else has written since")
        raise VerifyFailed(
            f"Envoy refused the routes {new.version}; the former ones ({old.version}) stay and were put back",
            outcome=Outcome.NOT_APPLIED,
            retryable=False,
        )

    def _problems(self, routes: Routes, admin: AdminState) -> Iterator[str]:
        for name in (self._names.stable, self._names.canary):
            if name not in admin.known:
                yield f"Envoy has no cluster {name!r}"
        if routes.canary_bp(self._names) != 0:
            yield f"traffic is not all on {self._names.stable}: {routes.weights}"
        if admin.version != routes.version:
            yield f"Envoy works with the routes {admin.version!r}, but the file says {routes.version!r}"
        if problem := self._runtime_problem(routes):
            yield problem
        if not os.access(self._path.parent, os.W_OK):
            yield f"the folder {self._path.parent} may not be written to; routes are renamed into it"

    def _runtime_problem(self, routes: Routes) -> str:
        if not routes.runtime_prefix:
            return ""
        return f"runtime_key_prefix {routes.runtime_prefix!r} overrides the weights in the file; remove it"

    # -- what to write -------------------------------------------------------------------------------------

    def _split(self, canary_bp: int) -> Split:
        return Split(stable=self._binding.stable, canary=self._binding.canary, canary_bp=canary_bp)

    def _change(self, request: ShiftRequest, before: AdminState | None) -> Change:
        names, bp = self._names, request.split.canary_bp
        dropped: set[str] = set()
        if request.kind is Order.FINALISE:
            dropped = {names.stable}
        elif request.is_down and before is not None and names.canary not in before.known:
            dropped = {names.canary}  # Envoy refuses routes that name a cluster it has lost
        weights = {names.stable: FULL_BP - bp, names.canary: bp}
        return Change(
            weights={name: weight for name, weight in weights.items() if name not in dropped},
            dropped=frozenset(dropped),
            match=request.match if request.wants_match else MatchRule(),
            fence=request.fence,
            op_id=request.op_id,
        )


def _check_target(target: dict[str, str]) -> None:
    for key in ("rds", "admin"):
        if not target.get(key):
            raise ConfigError(f"traffic.target.{key} is missing: the envoy adapter needs rds and admin")
    if unknown := sorted(set(target) - TARGET_KEYS):
        raise ConfigError(
            f"traffic.target.{unknown[0]} is unknown; known are {', '.join(sorted(TARGET_KEYS))}"
        )


def _cluster(target: dict[str, str], binding: Binding, version: str) -> str:
    template = target.get("cluster", "{service}_{version}")
    try:
        return template.format(service=binding.service, version=version, env=binding.environment)
    except (KeyError, IndexError, ValueError) as exc:
        raise ConfigError(
            f"traffic.target.cluster {template!r} may use {{service}}, {{version}} and {{env}} only"
        ) from exc
