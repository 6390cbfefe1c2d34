"""One file per rollout that has ended: its specification and every record, readable by people and programs.

Form: JSON, one document a line, UTF-8. The first line is the header::

    {"format": "sentra-rollout", "version": 1, "schema": 1, "rollout_id": …, "evaluations": 413, "spec": {…}}

and each following line is one evaluation record in fold order (`domain.records.Evaluation`). ``version`` is
that of the file's form, ``schema`` that of the records in it.

Rule: what is read back equals what was written, bit for bit, or writing fails.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from domain.errors import StoreError, StoreUnavailable
from domain.records import SCHEMA, Evaluation
from domain.rollout import RolloutSpec
from store.errors import UnknownRollout
from store.repository import Repository

FORMAT = "sentra-rollout"
VERSION = 1


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line."""

    format: str = FORMAT
    version: int = VERSION
    schema: int = SCHEMA
    rollout_id: str
    evaluations: int
    spec: RolloutSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """A rollout, as read back from its file."""

    spec: RolloutSpec
    evaluations: tuple[Evaluation, ...]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Evaluation).decode


def archive_rollout(repository: Repository, rollout_id: str, folder: Path) -> Path:
    """Write the file of a stored rollout to ``folder``; its path. Replaces one that is there.

    Raises :class:`UnknownRollout`, or :class:`StoreError` when its evaluations were pruned.
    """
    stored = repository.get_rollout(rollout_id)
    if stored is None:
        raise UnknownRollout(f"there is no rollout {rollout_id}")
    if stored.pruned_at is not None:
        raise StoreError(f"the evaluations of rollout {rollout_id} were pruned; there is nothing to archive")
    return write_archive(folder / f"{rollout_id}.jsonl", stored.spec, repository.evaluations_of(rollout_id))


def write_archive(path: Path, spec: RolloutSpec, evaluations: Sequence[Evaluation]) -> Path:
    """Write one file, complete or not at all; ``path`` itself."""
    header = Header(rollout_id=spec.rollout_id, evaluations=len(evaluations), spec=spec)
    lines = [_encode(header), *map(_line, evaluations)]
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(b"\n".join(lines) + b"\n")
        unfinished.replace(path)
    except OSError as exc:
        with suppress(OSError):
            unfinished.unlink()
        raise StoreUnavailable(f"the archive {path} cannot be written: {exc.strerror}") from exc
    return path


def _line(evaluation: Evaluation) -> bytes:
    # JSON has no infinity and no "not a number"; a record that holds one would come back changed.
    line = _encode(evaluation)
    try:
        is_same = _decode(line) == evaluation
    except msgspec.ValidationError:
        is_same = False
    if not is_same:
        raise StoreError(
            f"record {evaluation.seq} of rollout {evaluation.rollout_id} holds a number that JSON cannot say"
        )
    return line


def read_archive(path: Path) -> Archived:
    """The rollout in the file at ``path``.

    Raises :class:`StoreError` naming the line, for files of another form, a newer version, or cut short.
    """
    try:
        lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    except OSError as exc:
        raise StoreError(f"the archive {path} cannot be read: {exc.strerror}") from exc
    header = _header(path, lines)
    evaluations = tuple(_parse(path, number, line, _decode) for number, line in enumerate(lines[1:], 2))
    if len(evaluations) != header.evaluations:
        raise StoreError(
            f"the archive {path} is cut short: it holds {len(evaluations)} of {header.evaluations} records"
        )
    return Archived(spec=header.spec, evaluations=evaluations)


class _Form(msgspec.Struct):
    """What must be known before the rest of the header may be read."""

    format: str = ""
    version: int = 0
    schema: int = 0


def _header(path: Path, lines: Sequence[bytes]) -> Header:
    form = _parse(path, 1, lines[0], msgspec.json.Decoder(_Form).decode)
    if form.format != FORMAT:
        raise StoreError(f"{path} is no archive of a rollout")
    if (form.version, form.schema) != (VERSION, SCHEMA):
        raise StoreError(
            f"the archive {path} has version {form.version} and schema {form.schema}; "
            f"this program reads version {VERSION} and schema {SCHEMA}"
        )
    header: Header = _parse(path, 1, lines[0], msgspec.json.Decoder(Header).decode)
    return header


def _parse(path: Path, number: int, line: bytes, decode: Any) -> Any:
    try:
        return decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise StoreError(f"line {number} of the archive {path} cannot be read: {exc}") from exc
