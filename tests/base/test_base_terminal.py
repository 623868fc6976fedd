"""What others have named is shown, and commands nothing."""

import os
import pty
import subprocess
import sys

import pytest

from secure_base.terminal import escape, print_fields, print_table

HOSTILE = {
    "\x1b]0;owned\x07": "\\x1b]0;owned\\x07",
    "\x9b2J": "\\x9b2J",
    "a\nb\r\nc": "a\\nb\\r\\nc",
    "a\u2028b\u2029c\x85d": "a\\u2028b\\u2029c\\x85d",
    "\u202etxt.exe\u2066": "\\u202etxt.exe\\u2066",
    "zero\u200bwidth\ufeff": "zero\\u200bwidth\\ufeff",
    "\udcff": "\\udcff",
    "\U000e0041": "\\U000e0041",
    "tab\t": "tab\\t",
    "DEL\x7f": "DEL\\x7f",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_control_characters_are_made_visible(text):
    assert escape(text) == HOSTILE[text]
    assert escape(text).isprintable()


@pytest.mark.parametrize("text", ["", "plain", "é 日本 ~ \\ ' \"", "[bold]"])
def test_printable_text_is_unchanged(text):
    assert escape(text) == text


def test_a_pipe_gets_aligned_columns_one_line_a_row(capsys):
    print_table(("NAME", "", "WHAT"), [("a", "*", "x\ny"), ("long name", "", "")])
    assert capsys.readouterr().out == "NAME          WHAT\na          *  x\\ny\nlong name\n"


def test_a_table_without_rows_has_its_heads(capsys):
    print_table(("NAME", "WHAT"), [])
    print_fields([])
    assert capsys.readouterr().out == "NAME  WHAT\n"


def test_heads_are_escaped_too(capsys):
    """``secure-certs`` has a folder's name there."""
    print_table(("a\x1b[2J",), [])
    assert capsys.readouterr().out == "a\\x1b[2J\n"


def test_fields_are_aligned_and_escaped(capsys):
    print_fields([("name", "a\x1b[2J"), ("display name", "b")])
    assert capsys.readouterr().out == "name          a\\x1b[2J\ndisplay name  b\n"


def on_a_terminal(script, columns=40):
    """Run a script whose standard output is a terminal; return what it wrote there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", f"from secure_base.terminal import *\n{script}"],
        stdin=theirs,
        stdout=theirs,
        env={**os.environ, "COLUMNS": str(columns), "LINES": "24", "TERM": "dumb"},
    )
    os.close(theirs)
    written = b""
    try:
        while data := os.read(ours, 4096):
            written += data
    except OSError:
        pass  # Linux: the other end is closed
    os.close(ours)
    assert process.wait(30) == 0
    return written.decode().replace("\r\n", "\n")


def test_a_row_wider_than_the_terminal_is_folded_and_not_cut():
    cell = "".join(chr(ord("a") + number % 26) for number in range(150))
    out = on_a_terminal(f'print_table(("NAME", "WHAT"), [({cell!r}, "x")])')
    assert all(len(line) <= 40 for line in out.split("\n"))
    assert "…" not in out
    column = "".join(line.split()[0] for line in out.split("\n")[3:] if line.strip())
    assert column == cell


def test_a_value_wider_than_the_terminal_is_folded_and_not_cut():
    value = "v" * 150
    out = on_a_terminal(f'print_fields([("name", {value!r})])')
    assert out.count("v") == 150
    assert "…" not in out


def test_names_are_no_markup_and_command_no_terminal():
    out = on_a_terminal('print_table(("[red]H",), [("[bold]a\\x1b[2J",)])')
    assert "[red]H" in out
    assert "[bold]a\\x1b[2J" in out
    assert "\x1b[2J" not in out


def test_rich_is_not_imported_for_a_pipe():
    script = (
        "import sys\nfrom secure_base.terminal import *\n"
        "print_table(('a',), [('b',)])\nprint_fields([('a', 'b')])\n"
        "sys.exit('rich' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
