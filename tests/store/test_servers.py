"""A missing server is never a silent pass."""

from __future__ import annotations

import pytest

from tests.store.servers import missing


def test_a_missing_server_skips_on_a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="MariaDB is not installed"):
        missing("MariaDB")


def test_a_missing_server_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="MariaDB is missing, and CI must not skip"):
        missing("MariaDB")
