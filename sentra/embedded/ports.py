"""Ports for the embedded stack: found at run time, on 127.0.0.1 only.

Ports are taken from below the range the kernel hands to outgoing connections. Inside that range a port that
was free a moment ago can be taken by any client on the machine, and a client that keeps reconnecting to a
dead server there can, once in some ten thousand tries, connect to itself. A server killed on purpose and
started again on its old port must meet neither.
"""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from pathlib import Path

from domain.errors import ConfigError

HOST = "127.0.0.1"
"""The only address the embedded stack listens on."""

LOWEST = 20_000
"""Below it live the well-known defaults (Kafka 9092, MySQL 3306, Envoy 10000) that a person may be using."""

_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES = 2_000

# Deliberately not seeded: two stacks started side by side should not try the same ports in the same order.
_random = random.SystemRandom()


def free_port() -> int:
    """A port on which a server can listen now.

    Nothing reserves it: start the server soon, and let its readiness check tell it from a stranger.
    """
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """``count`` different free ports.

    Raises
    ------
    ConfigError
        When the machine has no more to give.
    """
    with ExitStack() as held:
        return [_claim(held) for _ in range(count)]


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` now; a port whose old connections linger counts as free."""
    with _socket() as probe:
        return _binds(probe, port)


def require_free(port: int, what: str) -> None:
    """Check that ``what`` (as a person calls it: "the Kafka broker") can have ``port``.

    Raises
    ------
    ConfigError
        One sentence that names the port, who needs it and what to do.
    """
    if not is_free(port):
        raise ConfigError(
            f"port {port} on {HOST}, which {what} needs, is in use: "
            f"stop what listens there (ss -ltnp 'sport = :{port}' shows it) or choose another port"
        )


def _claim(held: ExitStack) -> int:
    """Bind a free port and keep it bound until ``held`` closes, so that the next claim finds another one."""
    for _ in range(_TRIES):
        candidate = held.enter_context(_socket())
        if _binds(candidate, _candidate_port()):
            port: int = candidate.getsockname()[1]
            return port
        candidate.close()
    raise ConfigError(f"no free port was found on {HOST} in {_TRIES} tries: stop some servers and try again")


def _candidate_port() -> int:
    """A port below the outgoing range, or 0 (the kernel chooses) where that range leaves no room."""
    highest = _first_ephemeral_port()
    return _random.randrange(LOWEST, highest) if highest > LOWEST else 0


def _first_ephemeral_port() -> int:
    try:
        return int(_EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def _socket() -> socket.socket:
    """A socket that, like the servers we start, may reuse an address whose old connections linger."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return opened


def _binds(probe: socket.socket, port: int) -> bool:
    try:
        probe.bind((HOST, port))
        # Only listen() tells a bound-but-idle port from a served one when both sides set SO_REUSEADDR.
        probe.listen(1)
    except OSError:
        return False
    return True
