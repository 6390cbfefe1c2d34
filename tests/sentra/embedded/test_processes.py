"""Children are watched, stopped, quoted when they fail, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from domain.errors import ConfigError
from sentra.embedded.processes import Child, birth_mark, port_answers
from tests.sentra.embedded.waiting import eventually

OBLIGING = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + OBLIGING
FAILING = "import sys; print('first words'); print('cannot bind: Address already in use'); sys.exit(3)"
MakeChild = Callable[[str], Child]


@pytest.fixture
async def make_child(tmp_path: Path) -> AsyncIterator[MakeChild]:
    made: list[Child] = []

    def make(source: str) -> Child:
        made.append(
            Child("the server", [sys.executable, "-c", source], log_path=tmp_path / "logs" / "server.log")
        )
        return made[-1]

    yield make
    for child in made:
        child.kill()


async def never() -> bool:
    return False


async def always() -> bool:
    return True


async def test_a_child_runs_until_it_is_told_to_stop(make_child: MakeChild) -> None:
    child = make_child(OBLIGING)
    assert child.pid is None
    child.start()
    assert child.is_alive()
    await child.stop()
    assert not child.is_alive()
    assert child.exit_code == -signal.SIGTERM


async def test_a_child_that_ignores_the_request_is_killed(make_child: MakeChild) -> None:
    child = make_child(STUBBORN)
    child.start()
    await eventually(lambda: child.last_log_lines() == ["up"])
    await child.stop(grace_s=0.1)
    assert child.exit_code == -signal.SIGKILL


async def test_stopping_twice_or_before_the_start_does_nothing(make_child: MakeChild) -> None:
    child = make_child(OBLIGING)
    await child.stop()
    child.start()
    await child.stop()
    await child.stop()
    child.kill()


async def test_a_child_may_be_started_again_after_it_is_gone(make_child: MakeChild) -> None:
    child = make_child(OBLIGING)
    child.start()
    with pytest.raises(RuntimeError, match="running already"):
        child.start()
    child.kill()
    first = child.pid
    child.start()
    assert child.is_alive()
    assert child.pid != first


async def test_a_probe_that_says_yes_ends_the_wait(make_child: MakeChild) -> None:
    child = make_child(OBLIGING)
    child.start()
    await child.wait_until_ready(always, timeout_s=10)


async def test_a_refused_connection_means_not_yet(make_child: MakeChild) -> None:
    child = make_child(OBLIGING)
    child.start()
    answers = iter([ConnectionRefusedError(), TimeoutError(), None])

    async def refused_twice() -> bool:
        if (error := next(answers)) is not None:
            raise error
        return True

    await child.wait_until_ready(refused_twice, timeout_s=10)


async def test_a_child_that_ends_early_is_quoted(make_child: MakeChild) -> None:
    child = make_child(FAILING)
    child.start()
    with pytest.raises(ConfigError) as caught:
        await child.wait_until_ready(never, timeout_s=10)
    sentence = str(caught.value)
    assert "the server ended with exit code 3" in sentence
    assert "cannot bind: Address already in use" in sentence
    assert "first words" not in sentence


async def test_a_stranger_cannot_answer_for_a_dead_child(make_child: MakeChild) -> None:
    child = make_child(OBLIGING)
    child.start()
    child.kill()
    with pytest.raises(ConfigError, match="ended by signal 9"):
        await child.wait_until_ready(always, timeout_s=10)


async def test_a_child_that_is_never_ready_is_given_up(make_child: MakeChild) -> None:
    child = make_child(OBLIGING)
    child.start()
    await eventually(lambda: child.last_log_lines() == ["up"])
    with pytest.raises(ConfigError, match=r"not ready within 0\.1 s: its last words were 'up'"):
        await child.wait_until_ready(never, timeout_s=0.1)


async def test_a_probe_that_hangs_does_not_hang_the_wait(make_child: MakeChild) -> None:
    child = make_child(OBLIGING)
    child.start()

    async def hang() -> bool:
        await asyncio.Event().wait()
        return True

    with pytest.raises(ConfigError, match="not ready"):
        await child.wait_until_ready(hang, timeout_s=0.1)


async def test_only_the_lines_of_this_start_are_quoted(make_child: MakeChild) -> None:
    child = make_child("import os, time; print('born as', os.getpid(), flush=True); time.sleep(60)")
    for _ in range(2):
        child.start()
        await eventually(lambda: child.last_log_lines(9) == [f"born as {child.pid}"])
        child.kill()
    assert len(child.log_path.read_text().splitlines()) == 2


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    child = Child("the server", [tmp_path / "nothing"], log_path=tmp_path / "server.log")
    with pytest.raises(ConfigError, match=r"the server could not be started: .*nothing: No such file"):
        child.start()
    assert child.last_log_lines() == []


async def test_variables_are_added_to_ours(make_child: MakeChild, tmp_path: Path) -> None:
    show = "import os; print(os.environ['COLOUR'], 'PATH' in os.environ, os.getcwd())"
    log = tmp_path / "server.log"
    child = Child(
        "the server", [sys.executable, "-c", show], env={"COLOUR": "red"}, cwd=tmp_path, log_path=log
    )
    child.start()
    await eventually(lambda: not child.is_alive())
    assert child.last_log_lines() == [f"red True {tmp_path}"]


async def test_the_terminal_cannot_interrupt_a_child(make_child: MakeChild) -> None:
    child = make_child(OBLIGING)
    child.start()
    assert child.pid is not None
    assert os.getsid(child.pid) != os.getsid(0)


async def test_a_child_is_not_started_on_a_thread_it_would_die_with(make_child: MakeChild) -> None:
    child = make_child(OBLIGING)
    raised: list[BaseException] = []

    def start() -> None:
        try:
            child.start()
        except RuntimeError as exc:
            raised.append(exc)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(raised[0])


PARENT = """
import sys, time
from pathlib import Path
from sentra.embedded.processes import Child
child = Child("the grandchild", [sys.executable, "-c", "import time; time.sleep(60)"],
              log_path=Path(sys.argv[1]), die_with_parent=sys.argv[2] == "yes")
child.start()
print(child.pid, flush=True)
time.sleep(60)
"""


def orphan_of_a_killed_parent(log: Path, die_with_parent: str) -> tuple[int, str]:
    """Have a parent start a child, kill the parent, and return what names the child."""
    argv = [sys.executable, "-c", PARENT, str(log), die_with_parent]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        mark = birth_mark(pid)
        parent.kill()
    assert mark is not None
    return pid, mark


async def test_a_child_vanishes_when_its_parent_is_killed(tmp_path: Path) -> None:
    pid, mark = orphan_of_a_killed_parent(tmp_path / "log", die_with_parent="yes")
    await eventually(lambda: birth_mark(pid) != mark)


async def test_a_child_without_the_wish_survives_its_parent(tmp_path: Path) -> None:
    pid, mark = orphan_of_a_killed_parent(tmp_path / "log", die_with_parent="no")
    assert birth_mark(pid) == mark
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: birth_mark(pid) != mark)


def test_a_birth_mark_names_one_process_only() -> None:
    own = birth_mark(os.getpid())
    assert own is not None
    assert own == birth_mark(os.getpid())
    assert birth_mark(1) != own
    assert birth_mark(2**30) is None


async def test_a_port_nobody_listens_on_does_not_answer() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await port_answers("127.0.0.1", port)
    server.close()
    await server.wait_closed()
    assert not await port_answers("127.0.0.1", port)
