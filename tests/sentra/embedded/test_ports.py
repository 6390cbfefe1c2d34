"""Ports are free, different, outside the outgoing range, and trouble with them is one sentence."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.errors import ConfigError
from sentra.embedded.ports import HOST, LOWEST, free_port, free_ports, is_free, require_free


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(1)
        yield listener.getsockname()[1]


def test_a_free_port_can_be_listened_on() -> None:
    with socket.socket() as listener:
        listener.bind((HOST, free_port()))


def test_ports_asked_for_together_differ() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert all(is_free(port) for port in ports)


def test_no_port_lies_where_outgoing_connections_get_theirs() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if first <= LOWEST:
        pytest.skip(f"this kernel hands out ports from {first} on, so none are left below")
    assert all(LOWEST <= port < first for port in free_ports(50))


def test_a_listening_port_is_not_free(taken: int) -> None:
    assert not is_free(taken)


def test_a_port_in_use_is_named_in_one_sentence(taken: int) -> None:
    with pytest.raises(ConfigError) as caught:
        require_free(taken, "the Kafka broker")
    sentence = str(caught.value)
    assert f"port {taken}" in sentence
    assert "the Kafka broker" in sentence
    assert "choose another port" in sentence
    assert "\n" not in sentence


def test_a_port_whose_last_connection_lingers_is_free() -> None:
    port = free_port()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(1)
        client = socket.create_connection((HOST, port))
        served, _ = listener.accept()
        served.close()  # the server hangs up first, so its side stays in TIME_WAIT
        client.close()
    require_free(port, "a server")
