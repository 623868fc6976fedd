"""docs/policy.md: its policy, its cases, and its commands with what they print."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from test_docs_run import ROOT, Block, blocks, clone, run

__all__ = ["clone"]

BLOCKS = blocks("docs/policy.md")


def only(kind: str) -> str:
    (block,) = [block for block in BLOCKS if block.kind == kind]
    return block.text


@pytest.mark.parametrize(
    ("kind", "file"), [("json", "examples/policy.json"), ("yaml", "examples/policy-cases.yaml")]
)
def test_what_is_shown_is_the_file_that_the_commands_name(kind: str, file: str) -> None:
    assert only(kind) == (ROOT / file).read_text(encoding="utf-8")


def test_the_commands_work_and_print_what_is_shown(clone: Path) -> None:
    shown = 0
    for block, following in pairwise([*BLOCKS, Block("", "end", "")]):
        if block.kind != "sh":
            continue
        done = run(clone, block.text)
        assert done.returncode == 0, (block.text, done.stdout, done.stderr)
        if following.kind == "text":
            assert done.stdout == following.text
            shown += 1
    assert shown == 1


def test_the_line_that_a_case_prints_is_as_quoted(clone: Path) -> None:
    command = "secure-server policy test --json examples/policy.json examples/policy-cases.yaml"
    first = run(clone, command).stdout.splitlines()[0]
    assert f"`{first}`" in (ROOT / "docs/policy.md").read_text(encoding="utf-8")


def test_the_editors_setting_names_the_schema() -> None:
    (schema,) = json.loads(only("jsonc"))["json.schemas"]
    assert (ROOT / schema["url"]).is_file()
