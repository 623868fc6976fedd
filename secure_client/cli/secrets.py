"""Reading passwords and tokens from a terminal or a file, without echo."""

import getpass
import secrets
import sys
from pathlib import Path

from secure_client.cli.state import UsageProblem

# Without i, l, o and u, which are easily misread (Crockford's base 32).
_SIGNS = "0123456789abcdefghjkmnpqrstvwxyz"
_GROUPS = 6
_GROUP = 5

_MAX_PASSWORD_FILE = 65_536


def read_password(file: str | None, prompt: str, option: str) -> str:
    """The password in ``file``, the next line of standard input for ``-``, or what is typed.

    One line break at the end of a file is not part of it. Raises ``UsageProblem``.
    """
    if file is None:
        return _ask(prompt, option)
    return _from_file(file)


def read_new_password(file: str | None, option: str) -> str:
    """As ``read_password``; typed, it is asked for twice."""
    if file is not None:
        return _from_file(file)
    while True:
        first = _ask("New password: ", option)
        if first and first == _ask("New password, again: ", option):
            return first
        sys.stderr.write("These are not the same, or empty. Once more.\n")


def read_lines(given: list[str], what: str) -> list[str]:
    """The arguments, where each ``-`` stands for the lines of standard input; none is one ``-``."""
    found: list[str] = []
    for each in given or ["-"]:
        if each != "-":
            found.append(each)
            continue
        if sys.stdin.isatty():
            sys.stderr.write(f"Reading {what} from standard input, one a line.\n")
        found += [line.strip() for line in sys.stdin if line.strip()]
    if not found:
        raise UsageProblem(f"There is no {what}: give it as an argument or on standard input.")
    return found


def random_password(user: str) -> str:
    """150 random bits to read and type once; never with the user name in it."""
    while True:
        groups = ("".join(secrets.choice(_SIGNS) for _ in range(_GROUP)) for _ in range(_GROUPS))
        password = "-".join(groups)
        if user.lower() not in password:
            return password


def _ask(prompt: str, option: str) -> str:
    # getpass would read from a pipe, and echo, where there is no terminal.
    if not sys.stdin.isatty():
        raise UsageProblem(
            f"There is no terminal to ask for a password on: give {option} FILE, or - for a line "
            "of standard input."
        )
    return getpass.getpass(prompt)


def _from_file(file: str) -> str:
    if file == "-":
        line = sys.stdin.readline()
        if not line:
            raise UsageProblem("Standard input ended where a password was expected.")
        return line.removesuffix("\n").removesuffix("\r")
    try:
        with Path(file).open("rb") as opened:
            data = opened.read(_MAX_PASSWORD_FILE)
    except OSError as error:
        raise UsageProblem(f"{file} cannot be read: {error.strerror}.") from None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise UsageProblem(f"{file} holds no password: it must be UTF-8 text, and not empty.")
    return text
