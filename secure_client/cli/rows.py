"""Rows of users out of CSV (RFC 4180) or JSON Lines."""

import csv
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secure_api.users.v1 import user_service_pb2
from secure_client.cli.state import UsageProblem

COLUMNS = ("user_id", "email", "display_name", "roles")

_SEPARATORS = re.compile(r"[\s;,]+")


@dataclass(frozen=True, slots=True)
class Row:
    """One user to import, and the line of the file that it ends on."""

    line: int
    request: user_service_pb2.CreateUserRequest


def read_rows(file: str) -> list[Row]:
    """All rows of ``FILE.csv``, ``FILE.jsonl``, or ``-``: standard input in either format.

    Columns are ``user_id`` and, where wanted, ``email``, ``display_name`` and ``roles``, which
    are separated by spaces, commas or semicolons, or a list in JSON. Raises ``UsageProblem``,
    with the line, before anything is sent.
    """
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageProblem(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageProblem(f"{file} is not UTF-8.") from None
    suffix = Path(file).suffix.lower()
    if file == "-":
        suffix = ".jsonl" if text.lstrip().startswith("{") else ".csv"
    if suffix == ".csv":
        return _csv(file, text)
    if suffix == ".jsonl":
        return _json_lines(file, text)
    raise UsageProblem(f"{file}: its name must end in .csv or .jsonl.")


def _csv(file: str, text: str) -> list[Row]:
    reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
    try:
        heads = reader.fieldnames or ()
        _check(file, 1, dict.fromkeys(heads))
        rows = []
        for found in reader:
            if None in found or None in found.values():
                raise UsageProblem(
                    f"{file}, line {reader.line_num}: it has not {len(heads)} fields, as the first "
                    "line has."
                )
            rows.append(_row(reader.line_num, found))
    except csv.Error as error:
        raise UsageProblem(f"{file}, line {reader.reader.line_num}: {error}.") from None
    return rows


def _json_lines(file: str, text: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise UsageProblem(f"{file}, line {number}: this is no JSON object.")
        _check(file, number, found)
        for key, value in found.items():
            if not isinstance(value, str) and not (key == "roles" and _is_list(value)):
                raise UsageProblem(f"{file}, line {number}: {key} must be a text.")
        rows.append(_row(number, found))
    return rows


def _check(file: str, line: int, found: dict[str, Any]) -> None:
    unknown = [key for key in found if key not in COLUMNS]
    if unknown or "user_id" not in found:
        raise UsageProblem(
            f"{file}, line {line}: "
            + (f"{unknown[0]!a} is no column. " if unknown else "user_id is missing. ")
            + f"The columns are {', '.join(COLUMNS)}."
        )


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _row(line: int, found: dict[str, Any]) -> Row:
    roles = found.get("roles", "")
    if isinstance(roles, str):
        roles = [each for each in _SEPARATORS.split(roles) if each]
    return Row(
        line,
        user_service_pb2.CreateUserRequest(
            user_id=found["user_id"],
            user=user_service_pb2.User(
                email=found.get("email", ""),
                display_name=found.get("display_name", ""),
                roles=roles,
            ),
        ),
    )
