"""What ``secure-certs`` prints: tables for people, JSON for programs, errors in a line."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from secure_base.terminal import escape, print_table
from secure_tls.pem import serial_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from secure_tls.check import FileFinding, Revoked
    from secure_tls.outcome import Outcome

_Row = tuple[str, ...]


def complain(message: str) -> None:
    """Print an error to standard error."""
    print(f"Error: {escape(message)}", file=sys.stderr)  # noqa: T201 - this is the output


def print_outcomes(folder: Path, outcomes: Sequence[Outcome], *, as_json: bool) -> None:
    """Print what a run did with the files of a folder."""
    if as_json:
        _print_json({"files": [_outcome_object(folder, outcome) for outcome in outcomes]})
        return
    header: _Row = (str(folder), "", "who", "until", "note")
    rows: list[_Row] = [
        (_name(folder, o.path), o.state.value, o.who, _day(o.until), o.note) for o in outcomes
    ]
    if not any(outcome.note for outcome in outcomes):
        header, rows = header[:-1], [row[:-1] for row in rows]
    print_table(header, rows)


def print_check(folder: Path, findings: Sequence[FileFinding], *, as_json: bool) -> None:
    """Print a line for each file: who it is for, until when, and what is wrong."""
    if as_json:
        _print_json({"files": [_finding_object(folder, finding) for finding in findings]})
        return
    header = ("file", "who", "kind", "issued by", "until", "wrong")
    print_table(header, [_finding_row(folder, finding) for finding in findings])


def print_all(folder: Path, findings: Sequence[FileFinding], *, as_json: bool) -> None:
    """As ``print_check``, with serial numbers, keys and dates, and the revoked certificates."""
    entries = [entry for finding in findings for entry in finding.revoked]
    owners = {f.serial: f.who for f in findings if f.serial is not None}
    if as_json:
        files = [
            _finding_object(folder, finding)
            | {
                "serial": _serial(finding),
                "key": finding.key,
                "since": _iso(finding.since),
            }
            for finding in findings
        ]
        revoked = [_revoked_object(entry, owners) for entry in entries]
        _print_json({"files": files, "revoked": revoked})
        return
    header = ("file", "who", "kind", "issued by", "until", "wrong", "key", "since", "serial")
    rows = [
        (
            *_finding_row(folder, finding),
            finding.key,
            _day(finding.since),
            _serial(finding) or "",
        )
        for finding in findings
    ]
    print_table(header, rows)
    if entries:
        print()  # noqa: T201 - this is the output
        print_table(
            ("revoked", "who", "since", "reason"),
            [
                (serial_text(e.serial), owners.get(e.serial, ""), _day(e.since), e.reason)
                for e in entries
            ],
        )


def _outcome_object(folder: Path, outcome: Outcome) -> dict[str, object]:
    return {
        "file": _name(folder, outcome.path),
        "state": outcome.state.value,
        "who": outcome.who,
        "until": _iso(outcome.until),
        "note": outcome.note,
    }


def _finding_object(folder: Path, finding: FileFinding) -> dict[str, object]:
    return {
        "file": _name(folder, finding.path),
        "who": finding.who,
        "kind": finding.kind,
        "issued_by": finding.issued_by,
        "until": _iso(finding.until),
        "problems": list(finding.problems),
    }


def _revoked_object(entry: Revoked, owners: dict[int, str]) -> dict[str, object]:
    return {
        "serial": serial_text(entry.serial),
        "who": owners.get(entry.serial, ""),
        "since": _iso(entry.since),
        "reason": entry.reason,
    }


def _finding_row(folder: Path, finding: FileFinding) -> _Row:
    return (
        _name(folder, finding.path),
        finding.who,
        finding.kind,
        finding.issued_by,
        _day(finding.until),
        "; ".join(finding.problems) or "nothing",
    )


def _serial(finding: FileFinding) -> str | None:
    return None if finding.serial is None else serial_text(finding.serial)


def _name(folder: Path, path: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _print_json(value: dict[str, object]) -> None:
    print(json.dumps(value, indent=2))  # noqa: T201 - this is the output


def _day(until: float | None) -> str:
    return "" if until is None else f"{datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M} UTC"


def _iso(until: float | None) -> str | None:
    return None if until is None else datetime.fromtimestamp(until, UTC).isoformat()
