"""Projects, services, environments and policies: made as rollouts mention them. And a rollout's own row.

Rule: two rows of one service and environment, or of one target, are never active at once. The database's own
unique keys see to that; looking first only makes for a better sentence.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select

from domain.policy import Policy
from domain.rollout import Phase, RolloutSpec
from store.errors import AlreadyActive, Duplicate
from store.models import Deployment, Environment, PolicyVersion, Project, RolloutStep, Service

DEFAULT_PROJECT = "default"
"""Where a service belongs whose labels name no project."""

PENDING = "pending"
DONE = "done"
"""What a step is before and after the phases of its rollout."""


def json_text(value: Any) -> str:
    """``value`` as a document column holds it."""
    return msgspec.json.encode(value, order="sorted").decode()


def add_rollout(connection: Connection, spec: RolloutSpec, at: float) -> None:
    """Make the rows of a rollout that is about to begin.

    Raises :class:`AlreadyActive` naming the rollout that holds the service or the target,
    :class:`Duplicate` when the id was used before.
    """
    service_id, environment_id = _place(connection, spec, at)
    taken = _holder(connection, spec, service_id, environment_id)
    if taken is not None:
        raise _already_active(spec, taken)
    if deployment_id(connection, spec.rollout_id) is not None:
        raise Duplicate(f"the rollout id {spec.rollout_id} was used before; choose another one")
    _insert_deployment(connection, spec, at, service_id, environment_id, is_holder=True)


def adopt_rollout(connection: Connection, spec: RolloutSpec, at: float) -> int:
    """Make the rows of a rollout that the log tells of and this database never saw; its row's id."""
    service_id, environment_id = _place(connection, spec, at)
    is_free = _holder(connection, spec, service_id, environment_id) is None
    return _insert_deployment(connection, spec, at, service_id, environment_id, is_holder=is_free)


def deployment_id(connection: Connection, rollout_id: str) -> int | None:
    return connection.scalar(select(Deployment.id).where(Deployment.rollout_id == rollout_id))


def policy_id(connection: Connection, service_id: int, environment_id: int, policy: Policy, at: float) -> int:
    """The row of this version of a policy, made when it is new."""
    identity = {"service_id": service_id, "environment_id": environment_id, "version": policy.version}
    return _get_or_add(
        connection,
        PolicyVersion,
        identity,
        slos=json_text(policy.gates),
        steps=json_text(policy.weights_bp),
        windows=json_text({gate.title: gate.window_s for gate in policy.gates}),
        pass_count=policy.pass_count,
        policy=json_text(policy),
        created_at=at,
    )


def _place(connection: Connection, spec: RolloutSpec, at: float) -> tuple[int, int]:
    project = _get_or_add(
        connection, Project, {"name": spec.labels.project or DEFAULT_PROJECT}, created_at=at
    )
    target = spec.policy.traffic.target
    service = _get_or_add(
        connection,
        Service,
        {"project_id": project, "name": spec.service},
        adapter=spec.policy.traffic.adapter,
        kube_namespace=_text(target.get("namespace")),
        kube_name=_text(target.get("name")),
        created_at=at,
    )
    environment = _get_or_add(
        connection,
        Environment,
        {"project_id": project, "name": spec.environment},
        kube_context=_text(target.get("context")),
        kube_namespace=_text(target.get("namespace")),
        labels=json_text(spec.labels),
        created_at=at,
    )
    return service, environment


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _get_or_add(connection: Connection, table: Any, identity: dict[str, Any], **others: Any) -> int:
    same = [getattr(table, name) == value for name, value in identity.items()]
    found = connection.scalar(select(table.id).where(*same))
    if found is not None:
        return int(found)
    return _added(connection, table, identity | others)


def _added(connection: Connection, table: Any, values: dict[str, Any]) -> int:
    key = connection.execute(insert(table).values(values)).inserted_primary_key
    assert key is not None
    return int(key[0])


def _slot(service_id: int, environment_id: int) -> str:
    return f"{service_id}:{environment_id}"


def _holder(
    connection: Connection, spec: RolloutSpec, service_id: int, environment_id: int
) -> Row[str, str | None, str] | None:
    is_same = (Deployment.active_slot == _slot(service_id, environment_id)) | (
        Deployment.active_target == spec.target_key
    )
    query = select(Deployment.rollout_id, Deployment.active_target, Deployment.status).where(is_same)
    return connection.execute(query.order_by(Deployment.id).limit(1)).one_or_none()


def _already_active(spec: RolloutSpec, holder: Row[str, str | None, str]) -> AlreadyActive:
    held = (
        f"traffic of {spec.target_key}"
        if holder.active_target == spec.target_key
        else f"service {spec.service} in {spec.environment}"
    )
    return AlreadyActive(
        f"{held} is held by rollout {holder.rollout_id} ({holder.status}); wait for it to end or abort it",
        rollout_id=holder.rollout_id,
    )


def _insert_deployment(
    connection: Connection,
    spec: RolloutSpec,
    at: float,
    service_id: int,
    environment_id: int,
    *,
    is_holder: bool,
) -> int:
    added = _added(
        connection,
        Deployment,
        {
            "rollout_id": spec.rollout_id,
            "service_id": service_id,
            "environment_id": environment_id,
            "policy_id": policy_id(connection, service_id, environment_id, spec.policy, at),
            "stable_revision": spec.stable,
            "canary_revision": spec.canary,
            "spec": json_text(spec),
            "target_key": spec.target_key,
            "active_slot": _slot(service_id, environment_id) if is_holder else None,
            "active_target": spec.target_key if is_holder else None,
            "created_by": spec.created_by,
            "created_at": spec.created_at or at,
            "updated_at": at,
            "status": Phase.QUEUED.value,
            "reason": "",
            "seq": 0,
            "generation": 0,
            "step_index": 0,
            "ordered_bp": 0,
            "verified_bp": 0,
        },
    )
    steps = [
        {"deployment_id": added, "step_index": index, "weight_bp": weight, "status": PENDING}
        for index, weight in enumerate(spec.policy.weights_bp)
    ]
    connection.execute(insert(RolloutStep), steps)
    return added
