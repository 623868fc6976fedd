"""Policies, peers and principals that hypothesis makes."""

from a43_values import a_peer, a_principal
from hypothesis import strategies as st

from secure_server.auth.principal import ANONYMOUS

# Few and overlapping, so that rules match, miss by one sign, and compete.
_WORDS = ["", "a", "b", "ab", "aba", "ba", "/a", "/a/b", "/a/ba", "a*b", "*", "1", "true"]
words = st.sampled_from(_WORDS)
patterns = st.one_of(
    words,
    words.map(lambda word: word + "*"),
    words.map(lambda word: "*" + word),
    words.map(lambda word: f"*{word}*"),
)
_lists = st.lists(patterns, max_size=3)
_filled = st.lists(patterns, min_size=1, max_size=3)
_keys = st.sampled_from(["x", "X-Y", "y"])
_claim_names = st.sampled_from(["a", "b", "a.b", "[a.b]", "[a][b]"])

_sources = st.fixed_dictionaries(
    {},
    optional={
        "principals": _lists,
        "request_principals": _filled,
        "scopes": _filled,
        "roles": _filled,
        "claims": st.dictionaries(_claim_names, _filled, min_size=1, max_size=2),
    },
)
_requests = st.fixed_dictionaries(
    {},
    optional={
        "paths": _lists,
        "headers": st.lists(st.fixed_dictionaries({"key": _keys, "values": _filled}), max_size=2),
    },
)
_rules = st.fixed_dictionaries({}, optional={"source": _sources, "request": _requests})


def _numbered(prefix, rules):
    return [{"name": f"{prefix}{number}", **rule} for number, rule in enumerate(rules)]


policies = st.builds(
    lambda deny, allow: {
        "name": "p",
        "deny_rules": _numbered("d", deny),
        "allow_rules": _numbered("a", allow),
    },
    st.lists(_rules, max_size=3),
    st.lists(_rules, min_size=1, max_size=6),
)
_scalars = st.one_of(words, st.none(), st.booleans(), st.integers(0, 2), st.just(0.5))
_claims = st.dictionaries(
    st.sampled_from(["a", "b", "a.b"]),
    st.one_of(_scalars, st.lists(_scalars, max_size=3), st.dictionaries(st.just("b"), _scalars)),
)
principals = st.one_of(
    st.just(ANONYMOUS),
    st.builds(
        a_principal,
        words,
        words,
        scopes=st.frozensets(words, max_size=3),
        roles=st.frozensets(words, max_size=3),
        claims=_claims,
    ),
)
_sans = st.lists(words, max_size=2)
peers = st.one_of(st.none(), st.builds(a_peer, uri_sans=_sans, dns_sans=_sans, subject=words))
