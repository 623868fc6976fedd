"""One claim, found by its name and read as text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

ClaimPath: TypeAlias = tuple[str, ...]

_DOTTED = re.compile(r"[\w-]+(?:\.[\w-]+)*")
_BRACKETED = re.compile(r"(?:\[[^\[\]]+\])+")


def claim_path(name: str) -> ClaimPath | None:
    """Return the member names that lead to the claim; None where ``name`` is no claim's name.

    ``realm_access.roles`` is the member ``roles`` of the claim ``realm_access``. A member whose own
    name has dots, slashes or colons is written in brackets as Istio writes it:
    ``[kubernetes.io][namespace]``, ``[https://example.com/roles]``.
    """
    if _DOTTED.fullmatch(name):
        return tuple(name.split("."))
    if _BRACKETED.fullmatch(name):
        return tuple(name[1:-1].split("]["))
    return None


def claim_texts(claims: Mapping[str, Any], path: ClaimPath) -> tuple[str, ...]:
    """Return the texts of the claim at ``path``: one per element of a list, none where absent.

    Numbers and booleans are read as their JSON text; null counts as absent. Values nested deeper
    than a list of scalars are left out.
    """
    value: Any = claims
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return ()
        value = value[name]
    elements = value if isinstance(value, list | tuple | set | frozenset) else (value,)
    return tuple(
        element if isinstance(element, str) else json.dumps(element)
        for element in elements
        if isinstance(element, str | int | float)
    )
