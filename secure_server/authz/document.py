"""A strict JSON reader whose values know their place in the text."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from secure_server.authz.errors import PolicyError
from secure_server.authz.places import Steps, line_and_column, offset_of

MAX_CHARACTERS = 16 * 1024 * 1024
MAX_DEPTH = 64

# An unterminated string runs to the end of the text, so that no input is scanned twice.
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAYBE_SURROGATE = re.compile("\\\\u[dD]|[\ud800-\udfff]")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class _Flaw:
    """Marks in the decoded tree what Python's json accepts, but JSON or this reader does not."""

    what: str
    advice: str
    repeated: str | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """One value of the document. Its readers return a value of their type or raise `PolicyError`.

    ``subject`` names, for messages, the owner of the value, for example ``rule "admin"``.
    """

    text: str
    origin: str
    value: Any
    steps: Steps = ()
    subject: str = ""

    def about(self, subject: str) -> Node:
        return replace(self, subject=subject)

    def error(
        self, what: str, advice: str, *, at_key: bool = False, occurrence: int = 1
    ) -> PolicyError:
        """Make an error of two sentences: ``what``, without its full stop, and ``advice``."""
        offset = offset_of(self.text, self.steps, at_key=at_key, occurrence=occurrence)
        line, column = line_and_column(self.text, offset)
        path = _json_path(self.steps)
        owner = f" in {self.subject}" if self.subject else ""
        return PolicyError(
            f"{what} at {path}{owner}. {advice}",
            origin=self.origin,
            line=line,
            column=column,
            path=path,
        )

    def members(self, *known: str) -> dict[str, Node]:
        """Return the members of an object, which may only have ``known`` ones."""
        members = self.any_members()
        for name, member in members.items():
            if name not in known:
                raise member.error(f"Unknown key {quoted(name)}", _hint(name, known), at_key=True)
        return members

    def any_members(self) -> dict[str, Node]:
        if not isinstance(self.value, dict):
            raise self._not("an object")
        return {name: self._child(name, value) for name, value in self.value.items()}

    def items(self) -> list[Node]:
        if not isinstance(self.value, list):
            raise self._not("a list")
        return [self._child(number, value) for number, value in enumerate(self.value)]

    def strings(self) -> tuple[str, ...]:
        if isinstance(self.value, list) and all(isinstance(each, str) for each in self.value):
            return tuple(self.value)  # a big policy is mostly patterns: no node for each
        return tuple(item.string() for item in self.items())

    def string(self) -> str:
        if not isinstance(self.value, str):
            raise self._not("a string")
        return self.value

    def boolean(self) -> bool:
        if not isinstance(self.value, bool):
            raise self._not("true or false")
        return self.value

    def _child(self, step: str | int, value: object) -> Node:
        return Node(self.text, self.origin, value, (*self.steps, step), self.subject)

    def _not(self, wanted: str) -> PolicyError:
        return self.error(f"Found {_kind(self.value)} where {wanted} belongs", f"Write {wanted}.")


def read(text: str, *, origin: str) -> Node:
    """Decode a JSON text (RFC 8259) and return its root.

    Refused beyond what ``json`` refuses: members of the same name, NaN and numbers beyond a
    double's range, lone surrogates, nesting beyond `MAX_DEPTH` levels and texts longer than
    `MAX_CHARACTERS`.
    """
    if len(text) > MAX_CHARACTERS:
        message = f"The policy has {len(text)} characters. Keep it to {MAX_CHARACTERS}."
        raise PolicyError(message, origin=origin)
    _check_depth(text, origin)
    flawed = False

    def flaw(what: str, advice: str, repeated: str | None = None) -> _Flaw:
        nonlocal flawed
        flawed = True
        return _Flaw(what, advice, repeated)

    def an_object(pairs: list[tuple[str, Any]]) -> object:
        members = dict(pairs)
        if len(members) == len(pairs):
            return members
        seen: set[str] = set()
        # set.add returns None: the first name met a second time is the one to report.
        name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        return flaw(f"Key {quoted(name)} is given twice", "Keep one of them.", name)

    def a_number(digits: str) -> object:
        if math.isfinite(float(digits)):
            return float(digits) if any(sign in digits for sign in ".eE") else int(digits)
        return flaw(f"Number {quoted(digits)} is too large", "Write a smaller one.")

    def a_constant(name: str) -> object:
        return flaw(f"{name} is not a JSON number", "Write a finite number.")

    try:
        value = json.loads(
            text,
            object_pairs_hook=an_object,
            parse_constant=a_constant,
            parse_float=a_number,
            parse_int=a_number,
        )
    except json.JSONDecodeError as error:
        message = f"The policy is not valid JSON: {error.msg}."
        raise PolicyError(message, origin=origin, line=error.lineno, column=error.colno) from error
    root = Node(text, origin, value)
    if flawed or _MAYBE_SURROGATE.search(text):
        _check_flaws(root)
    return root


def quoted(value: str) -> str:
    """Return ``value`` as an ASCII JSON string, shortened to fit a message."""
    return json.dumps(value if len(value) <= 80 else value[:79] + "…")


def _check_depth(text: str, origin: str) -> None:
    # Before json, whose own limit depends on the depth of the stack at the call.
    depth = 0
    for token in _STRUCTURE.finditer(text):
        sign = token[0]
        if sign in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                line, column = line_and_column(text, token.start())
                message = f"The policy is nested deeper than {MAX_DEPTH} levels. Flatten it."
                raise PolicyError(message, origin=origin, line=line, column=column)
        elif sign in "]}":
            depth -= 1


def _check_flaws(node: Node) -> None:
    value = node.value
    if isinstance(value, _Flaw):
        if value.repeated is None:
            raise node.error(value.what, value.advice)
        member = replace(node, steps=(*node.steps, value.repeated))
        raise member.error(value.what, value.advice, at_key=True, occurrence=2)
    if isinstance(value, str) and _SURROGATE.search(value):
        raise node.error("The string holds a lone surrogate", "Write the whole character.")
    if isinstance(value, dict):
        for name, member in node.any_members().items():
            if _SURROGATE.search(name):
                what = "The key holds a lone surrogate"
                raise member.error(what, "Write the whole character.", at_key=True)
            _check_flaws(member)
    elif isinstance(value, list):
        for item in node.items():
            _check_flaws(item)


def _hint(name: str, known: tuple[str, ...]) -> str:
    plain = {each.replace("_", ""): each for each in known}
    # Istio and older tools write camelCase; very long names are not searched for close matches.
    spelled = re.sub("[^a-z]", "", name[:64].lower())
    near = get_close_matches(spelled, plain, n=1)
    if near:
        return f"Did you mean {quoted(plain[near[0]])}?"
    return f"The keys here are {', '.join(quoted(each) for each in known)}."


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {bool: "a boolean", str: "a string", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")


def _json_path(steps: Steps) -> str:
    path = "$"
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        elif _IDENTIFIER.fullmatch(step) and len(step) <= 80:
            path += f".{step}"
        else:
            path += f"[{quoted(step)}]"
    return path
