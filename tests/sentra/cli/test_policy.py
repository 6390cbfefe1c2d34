"""``sentra policy check``: what a policy means, or what is wrong with it and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentra.cli.exits import Exit
from tests.sentra.cli.conftest import Line
from tests.sentra.cli.shop import Shop


def test_a_good_policy_is_shown_with_its_defaults(nowhere: Path, sentra: Line) -> None:
    shop = Shop(nowhere)
    said = sentra("policy", "check", shop.policy(pass_count=None))
    assert said.code == Exit.OK
    assert f"{shop.service} in test" in said.out
    assert "10 % → 100 %" in said.out
    assert "3 passes" in said.out
    assert "≤ 5 %" in said.out


def test_a_good_policy_as_json_is_complete(nowhere: Path, sentra: Line) -> None:
    value = sentra("policy", "check", Shop(nowhere).policy(pass_count=None), "-o", "json").value
    assert value["valid"] is True
    assert value["policy"]["pass_count"] == 3
    assert value["policy"]["weights_bp"] == [1000, 10_000]
    assert len(value["version"]) == 12


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "line 1: the policy is empty"),
        ("service: a\nservice: b\n", "line 2: service is written twice"),
        ("service: shop\nenvironment: test\nspeed: 3\n", "line 3: a policy has no key 'speed'"),
        ("a: [1\n", "this is not YAML"),
        ("[]\n", "line 1: a policy is a mapping"),
    ],
)
def test_a_bad_policy_names_file_line_and_rule(text: str, sentence: str, nowhere: Path, sentra: Line) -> None:
    (nowhere / "bad.yaml").write_text(text)
    said = sentra("policy", "check", "bad.yaml", "-o", "json")
    assert said.code == Exit.ERROR
    assert said.out == ""
    assert "bad.yaml: " in said.err
    assert sentence in said.err


def test_a_file_that_is_no_text_is_an_error_in_a_sentence(nowhere: Path, sentra: Line) -> None:
    (nowhere / "bad.yaml").write_bytes(b"\xff\xfe\x00service")
    said = sentra("policy", "check", "bad.yaml")
    assert said.code == Exit.ERROR
    assert "bad.yaml" in said.err


def test_a_missing_file_is_named(nowhere: Path, sentra: Line) -> None:
    said = sentra("policy", "check", "none.yaml")
    assert said.code == Exit.ERROR
    assert "cannot read none.yaml: No such file or directory" in said.err
