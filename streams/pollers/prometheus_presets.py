"""What the metrics of well-known meshes, proxies and libraries are called: one table.

A preset fills in the settings of the same names; settings that are written win. ``stable`` and ``canary`` (or
``version`` for both) are regular expressions for the whole value of ``version_label`` in which {service},
{environment} and {version} stand for themselves, so names that a platform decorates can be told apart.
"""

from __future__ import annotations

_ENVOY = {
    # rq_total counts a request when it is sent, the classes when it is answered: only these add up.
    "requests": "envoy_cluster_upstream_rq_xx",
    "error_label": "envoy_response_code_class",
    "error_values": "5",
    "latency": "envoy_cluster_upstream_rq_time",
    "latency_unit": "ms",
    "presence": "envoy_cluster_membership_total",
    "version_label": "envoy_cluster_name",
    "version": "{service}_{version}",
}

_SERVER_FAULTS = "2|4|12|13|14|15"
"""gRPC codes that are the server's fault: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE,
DATA_LOSS."""

_SERVER_FAULT_NAMES = "UNKNOWN|DEADLINE_EXCEEDED|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS"

_ISTIO = {
    # Both sides of a call report it; the server's side sees every caller, and sees a call once.
    "requests": 'istio_requests_total{reporter="destination"}',
    "latency": 'istio_request_duration_milliseconds{reporter="destination"}',
    "latency_unit": "ms",
    "service_label": "destination_canonical_service",
    "version_label": "destination_version",
}

PRESETS: dict[str, dict[str, str]] = {
    "otel-http": {
        "requests": "http_server_request_duration_seconds_count",
        "error_label": "http_response_status_code",
        "error_values": "5..",
        "latency": "http_server_request_duration_seconds",
        "latency_unit": "s",
        "service_label": "service_name",
        "version_label": "service_version",
    },
    "otel-grpc": {
        "requests": "rpc_server_duration_milliseconds_count",
        "error_label": "rpc_grpc_status_code",
        "error_values": _SERVER_FAULTS,
        "latency": "rpc_server_duration_milliseconds",
        "latency_unit": "ms",
        "service_label": "service_name",
        "version_label": "service_version",
    },
    "otel-rpc": {
        # The newer convention, whose codes some libraries write as names.
        "requests": "rpc_server_call_duration_seconds_count",
        "error_label": "rpc_response_status_code",
        "error_values": f"{_SERVER_FAULTS}|{_SERVER_FAULT_NAMES}",
        "latency": "rpc_server_call_duration_seconds",
        "latency_unit": "s",
        "service_label": "service_name",
        "version_label": "service_version",
    },
    "istio": {**_ISTIO, "error_label": "response_code", "error_values": "5.."},
    "istio-grpc": {**_ISTIO, "error_label": "grpc_response_status", "error_values": _SERVER_FAULTS},
    "linkerd": {
        "requests": 'response_total{direction="inbound"}',
        "error_label": "classification",
        "error_values": "failure",
        # The time to the first byte.
        "latency": 'response_latency_ms{direction="inbound"}',
        "latency_unit": "ms",
        "version_label": "deployment",
        "version": "{service}-{version}",
    },
    "linkerd-route": {
        # Routes of the Gateway API, as the caller's proxy sees their backends.
        "requests": "outbound_http_route_backend_response_statuses_total",
        # A backend that did not answer has no status.
        "error_label": "http_status",
        "error_values": "5..|",
        "latency": "outbound_http_route_backend_response_duration_seconds",
        "latency_unit": "s",
        "version_label": "backend_name",
        "version": "{service}-{version}",
    },
    "envoy": _ENVOY,
    # Contour's clusters are namespace_service_port, and those of Gloo and kgateway are built alike.
    "contour": {**_ENVOY, "version": "{environment}_{service}-{version}_[0-9a-zA-Z-]+"},
    "gloo": {**_ENVOY, "version": "{environment}-{service}-{version}-[0-9a-zA-Z-]+_[0-9a-zA-Z-]+"},
    "kgateway": {**_ENVOY, "version": "kube_{environment}_{service}-{version}_[0-9]+"},
    "ingress-nginx": {
        "requests": "nginx_ingress_controller_requests",
        "error_label": "status",
        "error_values": "5..",
        "latency": "nginx_ingress_controller_request_duration_seconds",
        "latency_unit": "s",
        "service_label": "ingress",
        # Requests that a canary ingress took name it here; all others leave it empty.
        "version_label": "canary",
        "stable": "",
        "canary": ".+",
    },
    "traefik": {
        "requests": "traefik_service_requests_total",
        "error_label": "code",
        "error_values": "5..",
        "latency": "traefik_service_request_duration_seconds",
        "latency_unit": "s",
        "version_label": "service",
        "version": "{environment}-{service}-{version}-[0-9a-zA-Z-]+@kubernetes(crd|gateway)?",
    },
    "haproxy": {
        # HAProxy has averages of latencies only.
        "requests": "haproxy_backend_http_responses_total",
        "error_label": "code",
        "error_values": "5xx",
        "version_label": "proxy",
        "version": "{service}-{version}",
    },
    "kong": {
        "requests": "kong_http_requests_total",
        "error_label": "code",
        "error_values": "5..",
        "latency": "kong_request_latency_ms",
        "latency_unit": "ms",
        "version_label": "service",
        "version": "{environment}[.]{service}-{version}[.].+",
    },
    "cilium": {
        # Needs httpV2 with sourceContext and destinationContext of workloads.
        "requests": 'hubble_http_requests_total{reporter="server"}',
        "error_label": "status",
        "error_values": "5..",
        "latency": 'hubble_http_request_duration_seconds{reporter="server"}',
        "latency_unit": "s",
        "version_label": "destination_workload",
        "version": "{service}-{version}",
    },
    "knative": {
        "requests": "revision_app_request_count",
        "error_label": "response_code_class",
        "error_values": "5xx",
        "latency": "revision_app_request_latencies",
        "latency_unit": "ms",
        "service_label": "service_name",
        "version_label": "revision_name",
    },
}
"""By the name that ``preset`` says."""
