"""The documents' claims about security hold in this repository, as far as a test can tell."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
THREATS = ROOT / "docs/threats.md"
SECURITY = ROOT / "SECURITY.md"

_NUMBER = re.compile(r"\b[TJKGUMCO]\d{1,2}\b")
_TEST = re.compile(r"def test_((?:[TJKGUMCO]\d{1,2}_)+)")
_ADVISORY = re.compile(r"\b(?:CVE-\d{4}-\d{4,6}|GHSA(?:-[0-9a-z]{4}){3})\b")
_ROW = re.compile(r"Row\(\s*\"([TJKGUMCO]\d{1,2}) ")


def proven() -> set[str]:
    """The numbers that a test, or a line of a table of tests, carries in its name."""
    files = (ROOT / "tests").rglob("*.py")
    texts = [file.read_text(encoding="utf-8") for file in files]
    names = [name for text in texts for name in _TEST.findall(text)]
    numbers = {number for name in names for number in name.split("_") if number}
    return numbers.union(*(_ROW.findall(text) for text in texts))


def rows(document: Path) -> list[list[str]]:
    """The cells of all tables, without their heads."""
    lines = document.read_text(encoding="utf-8").splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for before, line in itertools.pairwise(lines)
        if line.startswith("|") and before.startswith("|") and not line.startswith("|---")
    ]


def test_every_number_that_the_threats_name_is_a_test() -> None:
    named = set(_NUMBER.findall(THREATS.read_text(encoding="utf-8")))
    assert len(named) > 80
    assert sorted(named - proven()) == []


def test_no_attack_is_called_stopped_without_a_test() -> None:
    """Of an attacker or of an advisory: the last cell of each row has a number."""
    for row in rows(THREATS):
        assert _NUMBER.fullmatch(row[-1].split(" ")[0]), row
        assert all(_NUMBER.fullmatch(number) for number in row[-1].split(" ")), row


def test_every_advisory_is_named_once_with_what_excludes_it() -> None:
    text = THREATS.read_text(encoding="utf-8")
    advisories = _ADVISORY.findall(text)
    assert len(advisories) == len(set(advisories)) > 25
    for row in rows(THREATS):
        if _ADVISORY.search(row[0]):
            assert len(row) == 4, row
            assert all(row), row


@pytest.mark.parametrize("document", [THREATS, SECURITY], ids=lambda path: path.name)
def test_every_reference_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:secure_\w+|docs|tests)/[\w/.]+)`", text):
        assert (ROOT / path).is_file(), path
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        file = (document.parent / path) if path else document
        assert file.is_file(), target
        titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not anchor or anchor in anchors, target


def test_the_readme_and_the_way_to_report_lead_there() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(docs/threats.md)" in readme
    assert "(SECURITY.md)" in readme
    assert "(docs/threats.md)" in SECURITY.read_text(encoding="utf-8")


def test_the_oldest_python_of_the_table_is_the_oldest_that_installs() -> None:
    (oldest,) = re.findall(r"python_requires = >=(\S+)", (ROOT / "setup.cfg").read_text())
    listed = re.findall(r"^\| (3\.\d+) \| \w+ \d{4} \|$", SECURITY.read_text(), re.MULTILINE)
    assert listed[0] == oldest
    assert listed == sorted(listed, key=lambda version: int(version.partition(".")[2]))


def test_no_document_names_an_invented_mail_address() -> None:
    """Reports go through the repository's own form."""
    assert not re.findall(r"\S+@\S+\.\S+", SECURITY.read_text(encoding="utf-8"))
