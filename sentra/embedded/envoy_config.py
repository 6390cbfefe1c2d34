"""What Envoy is told: the bootstrap and the routes, as plain dictionaries. No files and no processes here.

The *bootstrap* is fixed for one start: listener, one cluster per version, statistics. The *routes* (RDS) hold
the split and are what an actuator rewrites. Their form is the contract with it, see :func:`initial_routes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentra.embedded.ports import HOST

ROUTE_CONFIG = "sentra"
"""Name of the route configuration; Envoy's statistics about it are ``http.ingress.rds.sentra.*``."""

VIRTUAL_HOST = "service"
STAT_PREFIX = "ingress"

TOTAL_WEIGHT = 10_000
"""What a route's weights sum to, so that one unit is one basis point. Envoy itself derives the sum."""

INITIAL_VERSION = "0.0"
"""``<epoch>.<sequence>``, older than whatever an actuator writes: epochs start at 1."""

VERSION_HEADER = "x-sentra-version"
"""On every answer, also on those Envoy gives itself for a dead upstream, where the service's is missing."""

LATENCY_BUCKETS_MS = (5, 10, 25, 50, 100, 200, 300, 400, 600, 800, 1000, 1500, 2500, 5000)
"""Upper edges. The default limit (400 ms) and its double lie *on* an edge, so the counts there are exact."""

_TYPE = "type.googleapis.com/"
_HTTP_FILTERS = _TYPE + "envoy.extensions.filters.http."
_OUT_OF_REACH = 10_000
_ROUTE_TIMEOUT = "15s"

Config = dict[str, Any]
Address = tuple[str, int]


def cluster_name(service: str, version: str) -> str:
    """Envoy's name for one version of a service.

    >>> cluster_name("demo", "v1")
    'demo_v1'
    """
    return f"{service}_{version}"


def initial_routes(stable_cluster: str, canary_cluster: str | None = None) -> Config:
    """The routes before anybody has shifted traffic: everything goes to stable.

    One route configuration, one virtual host, one route with ``weighted_clusters``. ``version_info`` comes
    back as ``version_text`` once the routes are in force; routes that name an unknown cluster are refused and
    the former ones stay.
    """
    weights = [{"name": stable_cluster, "weight": TOTAL_WEIGHT}]
    if canary_cluster is not None:
        weights.append({"name": canary_cluster, "weight": 0})
    # No retry policy: a retried failure would be hidden from the judge.
    route = {
        "match": {"prefix": "/"},
        "route": {"weighted_clusters": {"clusters": weights}, "timeout": _ROUTE_TIMEOUT},
    }
    configuration = {
        "@type": _TYPE + "envoy.config.route.v3.RouteConfiguration",
        "name": ROUTE_CONFIG,
        "virtual_hosts": [{"name": VIRTUAL_HOST, "domains": ["*"], "routes": [route]}],
        "validate_clusters": True,
    }
    return {"version_info": INITIAL_VERSION, "resources": [configuration]}


def bootstrap(
    *,
    node_id: str,
    service: str,
    listen_port: int,
    admin_port: int,
    upstreams: Mapping[str, Address],
    routes: Path,
    access_log: Path,
) -> Config:
    """All that Envoy needs to start; ``upstreams`` maps versions to addresses."""
    clusters = [
        _cluster(cluster_name(service, version), version, where) for version, where in upstreams.items()
    ]
    return {
        "node": {"id": node_id, "cluster": "sentra-demo"},
        "admin": {"address": _address((HOST, admin_port))},
        "stats_flush_interval": "1s",  # histograms lag the counters by up to this
        "stats_config": {"histogram_bucket_settings": [_latency_buckets()]},
        "static_resources": {
            "listeners": [_listener(listen_port, _connection_manager(routes, access_log))],
            "clusters": clusters,
        },
    }


def _listener(port: int, manager: Config) -> Config:
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {
        "name": STAT_PREFIX,
        "address": _address((HOST, port)),
        # Otherwise two Envoys could share one port in silence, each with its own split.
        "enable_reuse_port": False,
        "filter_chains": [{"filters": filters}],
    }


def _connection_manager(routes: Path, access_log: Path) -> Config:
    return {
        "@type": _TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": STAT_PREFIX,
        "codec_type": "HTTP1",
        "generate_request_id": False,
        "rds": {
            "route_config_name": ROUTE_CONFIG,
            "config_source": {
                "path_config_source": {"path": str(routes)},
                "resource_api_version": "V3",
            },
        },
        "access_log": [{"name": "envoy.access_loggers.file", "typed_config": _access_log(access_log)}],
        "http_filters": [
            {"name": "envoy.filters.http.header_mutation", "typed_config": _version_header()},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": _HTTP_FILTERS + "router.v3.Router"},
            },
        ],
    }


def _version_header() -> Config:
    """Name the version on each answer. A filter rather than a route option: a shift rewrites the routes."""
    header = {"key": VERSION_HEADER, "value": "%METADATA(CLUSTER:sentra:version)%"}
    append = {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return {
        "@type": _HTTP_FILTERS + "header_mutation.v3.HeaderMutation",
        "mutations": {"response_mutations": [{"append": append}]},
    }


def _access_log(path: Path) -> Config:
    fields = {
        "start_time": "%START_TIME(%s.%6f)%",
        "response_code": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "cluster": "%UPSTREAM_CLUSTER%",
        "duration": "%DURATION%",
        "details": "%RESPONSE_CODE_DETAILS%",
    }
    return {
        "@type": _TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": str(path),
        "log_format": {"json_format": fields},
    }


def _latency_buckets() -> Config:
    return {"match": {"contains": "rq_time"}, "buckets": list(LATENCY_BUCKETS_MS)}


def _cluster(name: str, version: str, where: Address) -> Config:
    endpoint = {"endpoint": {"address": _address(where)}}
    return {
        "name": name,
        "type": "STATIC" if _is_ip(where[0]) else "STRICT_DNS",
        "connect_timeout": "0.5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": {"thresholds": [_no_breaker()]},
        "metadata": {"filter_metadata": {"sentra": {"version": version}}},
    }


def _no_breaker() -> Config:
    """Limits out of reach: the default of 1024 would answer for a slow canary, and look like its errors."""
    limits = ("max_connections", "max_pending_requests", "max_requests")
    return dict.fromkeys(limits, _OUT_OF_REACH)


def _address(where: Address) -> Config:
    return {"socket_address": {"address": where[0], "port_value": where[1]}}


def _is_ip(host: str) -> bool:
    return host.replace(".", "").isdigit() or ":" in host
