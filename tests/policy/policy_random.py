"""Policies and calls by chance, from few words, so that rules match, miss by one sign, compete."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

PATHS = ["/a.A/Get", "/a.A/Set", "/a.AB/Get", "/b.A/Get", "/b.A/GetAll"]
URIS = ["spiffe://x.test/a", "spiffe://x.test/ab", "spiffe://x.test.b/a"]
DNS_NAMES = ["a.x.test", "b.x.test"]
WORDS = ["a", "ab", "abc", "b", "cab", "A", "*", "a*b"]
HEADERS = ["x-one", "X-Two", "three.bin_"]
CLAIMS = ["a", "b", "a.b", "[a][b]"]

CERTIFICATES: list[dict[str, Any]] = [
    *({"uri_sans": [uri]} for uri in URIS),
    *({"dns_sans": [name]} for name in DNS_NAMES),
    {"uri_sans": URIS[:2]},
    {"dns_sans": DNS_NAMES},
]
"""Names of one kind each: what Envoy makes of the kinds after the first is a known difference."""


@dataclass(frozen=True)
class Call:
    """``certificate`` is what its names are, if there is one; ``claims`` are the token's."""

    certificate: dict[str, Any] | None
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    claims: dict[str, Any] | None = None
    tls: bool = True


def a_policy(random: Random) -> dict[str, Any]:
    return {
        "name": "random",
        "deny_rules": [_rule(random, f"deny-{n}") for n in range(random.choice([0, 0, 1, 2]))],
        "allow_rules": [_rule(random, f"allow-{n}") for n in range(random.choice([1, 2, 3]))],
    }


def a_call(random: Random) -> Call:
    keys = random.sample(HEADERS, random.choice([0, 1, 2]))
    certificate = random.choice([*CERTIFICATES, None])
    return Call(
        certificate,
        random.choice(PATHS),
        tuple((key.lower(), random.choice([*WORDS, ""])) for key in keys),
        random.choice([None, _claims(random), _claims(random)]),
        tls=certificate is not None or random.random() < 0.5,
    )


def _rule(random: Random, name: str) -> dict[str, Any]:
    source: dict[str, Any] = {}
    request: dict[str, Any] = {}
    if random.random() < 0.5:
        source["principals"] = _patterns(random, [*URIS, *DNS_NAMES, ""])
    for key in ("scopes", "roles"):
        if random.random() < 0.25:
            source[key] = _patterns(random, WORDS)
    if random.random() < 0.25:
        source["claims"] = {random.choice(CLAIMS): _patterns(random, WORDS)}
    if random.random() < 0.6:
        request["paths"] = _patterns(random, PATHS)
    if random.random() < 0.3:
        key = random.choice(HEADERS)
        request["headers"] = [{"key": key, "values": _patterns(random, WORDS)}]
    return {"name": name, "source": source, "request": request}


def _patterns(random: Random, words: list[str]) -> list[str]:
    return [_pattern(random, random.choice(words)) for _ in range(random.choice([1, 2, 3]))]


def _pattern(random: Random, word: str) -> str:
    cut = random.randint(1, max(1, len(word) - 1))
    return random.choice([word, word, word[:cut] + "*", "*" + word[cut:], f"*{word}*", "*"])


def _claims(random: Random) -> dict[str, Any]:
    def texts() -> list[str]:
        return random.sample(WORDS, random.choice([0, 1, 2]))

    return {
        "scopes": texts(),
        "roles": texts(),
        "a": random.choice([random.choice(WORDS), texts(), {"b": random.choice(WORDS)}]),
        "b": random.choice(["", random.choice(WORDS), {"b": "a"}]),
    }
