"""M3, M4, M6, T17: whose authorities count, which path of several, and revocation lists."""

from __future__ import annotations

from paths_pki import ACME, BILLING, DAY, Cert, Crl, authority, client, root
from paths_row import IDENTITY, LAST_SECOND, ONE_PATH, STALE, STRICT, TLS_TOO, Row

_ACME = {"acme.example": ("acme",)}
_OURS = {"example.org": ("root",)}

# A cross-certificate: the partner's authority vouches for our intermediate's key and name.
_CROSS = authority("acme", subject="mid", key="mid")


def _cross(name: str, code: str, **pki: Cert) -> tuple[Row, Row]:
    """A leaf that only the partner's cross-certificate would help: once the partner has a bundle
    of its own, once we have.
    """
    certificates = {"cross": _CROSS, **pki}
    sent = ("cross", "mid")  # TLS follows the first
    return (
        Row(
            f"M4 a partner's cross-certificate does not help past {name}",
            code,
            pki=certificates,
            sent=sent,
            trusted=("root", "spare"),
            bundles=_ACME,
            wire=True,
        ),
        Row(
            f"M4 a cross-certificate of client_ca does not help our bundle past {name}",
            code,
            pki=certificates,
            sent=sent,
            trusted=("acme",),
            bundles=_OURS,
        ),
    )


CROSS = (
    *_cross(
        "name constraints",
        "name_constraints",
        mid=authority("root", permitted=("URI:other.example",)),
    ),
    *_cross("EKU", "issuer_eku", mid=authority("root", uses=("server",))),
    *_cross("path length", "path_length", root=root("root", path_length=0)),
    *_cross("dates", "issuer_dates", mid=authority("root", until=-1)),
    *_cross("key strength", "weak_key", root=root("root", kind="rsa1024")),
    Row(
        "M4 a cross-certificate does not help past the trust domain",
        "certificate_authority",
        pki={"cross": _CROSS},
        sent=("cross",),
        bundles=_ACME,
        wire=True,
    ),
    Row(
        "M4 the partner's authority does not vouch for our domain",
        "certificate_authority",
        pki={"leaf": client("acme_mid")},
        sent=("acme_mid",),
        bundles=_ACME,
        wire=True,
    ),
    Row(
        "M4 our authority does not vouch for a domain with a bundle",
        "certificate_authority",
        pki={"leaf": client("mid", names=(ACME,))},
        bundles=_ACME,
        wire=True,
    ),
    Row(
        "M4 a cross-certificate beside a good path does no harm",
        pki={"cross": _CROSS},
        sent=("cross", "mid"),
        bundles=_ACME,
        wire=True,
    ),
)

DOMAINS = (
    Row("the plain case", wire=True),
    Row("a leaf under the root itself", pki={"leaf": client("root")}, sent=(), wire=True),
    Row(
        "M4 three certificates in the wrong order",
        pki={"leaf": client("low")},
        sent=("mid", "low"),
        wire=True,
    ),
    Row(
        "a partner's client by the partner's bundle",
        leaf="acme_leaf",
        sent=("acme_mid",),
        bundles=_ACME,
        wire=True,
    ),
    Row(
        "T12 a trust domain that is not configured",
        "trust_domain",
        leaf="acme_leaf",
        sent=("acme_mid",),
        trusted=("root", "acme"),
        openssl=IDENTITY,
        wire=True,
    ),
    Row(
        "T12 no SPIFFE ID, where trust domains are configured",
        "trust_domain",
        pki={"leaf": client("mid", names=("DNS:billing.example.org",))},
        openssl=IDENTITY,
        wire=True,
    ),
    Row(
        "no SPIFFE ID, where none are configured",
        pki={"leaf": client("mid", names=("DNS:billing.example.org",))},
        domains=None,
    ),
    Row(
        "T17 the authority is in the bundle no more",
        "certificate_authority",
        trusted=("acme",),
        wire=TLS_TOO,
    ),
    Row(
        "T17 the domain's own bundle lacks it, client_ca has it",
        "certificate_authority",
        bundles={"example.org": ("acme",)},
        wire=True,
    ),
    Row("T3 the intermediate is not sent", "certificate_authority", sent=()),
    Row("the root is sent too", sent=("mid", "root"), wire=True),
    Row("the leaf is sent twice", sent=("leaf", "mid"), wire=True),
    Row("another's leaf is sent too", sent=("acme_leaf", "mid"), wire=True),
    Row(
        "T3 a root of the client's own is sent",
        "certificate_authority",
        leaf="acme_leaf",
        sent=("acme_mid", "acme"),
        domains=None,
    ),
    Row(
        "T3 a root of our root's name is sent",
        "certificate_authority",
        pki={"false": root("false", subject="root"), "mid": authority("false")},
        sent=("mid", "false"),
        wire=TLS_TOO,
    ),
    Row(
        "T3 the leaf signs itself",
        "certificate_authority",
        pki={"leaf": client("leaf")},
        sent=(),
    ),
    Row(
        "T3 the leaf names the intermediate, another key signed it",
        "certificate_authority",
        pki={"leaf": client("mid", signer="acme")},
    ),
    Row(
        "T3 the intermediate names the root, another key signed it",
        "certificate_authority",
        pki={"mid": authority("root", signer="acme")},
    ),
    Row("an intermediate as anchor", sent=(), trusted=("mid",)),
    Row("an intermediate as anchor, its root is sent", sent=("mid", "root"), trusted=("mid",)),
    Row(
        "an intermediate as anchor says nothing of its siblings",
        "certificate_authority",
        pki={"other": authority("root"), "leaf": client("other")},
        sent=("other", "root"),
        trusted=("mid",),
    ),
    Row(
        "an intermediate as anchor that is over",
        "issuer_dates",
        pki={"mid": authority("root", until=-1), "other": root("other")},
        sent=(),
        trusted=("mid", "other"),
    ),
)

_TWIN = {"twin": root("twin", subject="root"), "mid": authority("twin")}

SEVERAL = (
    Row("two trusted roots of one name, the second is meant", pki=_TWIN, trusted=("root", "twin")),
    Row(
        "two trusted roots of one name, the first is meant",
        pki={**_TWIN, "mid": authority("root")},
        trusted=("root", "twin"),
        wire=True,
    ),
    Row("two roots of one name, the wrong one is trusted", "certificate_authority", pki=_TWIN),
    *(
        Row(
            f"two intermediates of one name and two keys, {order}",
            pki={"twin": authority("root", subject="mid"), "leaf": client("mid", aki=False)},
            sent=sent,
            openssl=STRICT,
        )
        for order, sent in (("first", ("mid", "twin")), ("second", ("twin", "mid")))
    ),
    *(
        Row(
            f"M4 an intermediate that {what} beside a good one of its key",
            pki={"bad": authority("root", subject="mid", key="mid", **how)},
            sent=("bad", "mid"),
        )
        for what, how in (
            ("is over", {"until": -1}),
            ("may not sign", {"usage": ("crl",)}),
            ("is for servers", {"uses": ("server",)}),
            ("excludes the name", {"excluded": ("URI:example.org",)}),
            ("has an unknown critical extension", {"unknown": "critical"}),
        )
    ),
    Row(
        "M4 a longer path is good where the shorter is not",
        pki={
            "root": root("root", until=-1),
            "cross": authority("next", subject="root", key="root"),
            "next": root("next"),
        },
        sent=("mid", "cross"),
        trusted=("root", "next"),
        openssl=ONE_PATH,
    ),
    Row(
        "a loop of cross-certificates leads nowhere",
        "certificate_authority",
        pki={
            "a": authority("b"),
            "b": authority("a"),
            "leaf": client("a"),
        },
        sent=("a", "b"),
    ),
    Row(
        "a loop of cross-certificates with a way out",
        pki={
            "a": authority("b"),
            "b": authority("a"),
            "out": authority("root", subject="b", key="b"),
            "leaf": client("a"),
        },
        sent=("a", "out", "b"),
        wire=True,
    ),
    Row(
        "eight twins that all vouch for each other lead nowhere",
        "certificate_authority",
        pki={f"t{n}": authority("t0", subject="t", key="t", serial=100 + n) for n in range(8)}
        | {"leaf": client("t0")},
        sent=tuple(f"t{n}" for n in range(8)),
    ),
    Row(
        "eight strangers are sent before the intermediate",
        "path",
        pki={f"s{n}": authority("acme") for n in range(8)},
        sent=(*(f"s{n}" for n in range(8)), "mid"),
        openssl="it looks at all that is sent",
        wire=True,
    ),
    Row(
        "seven strangers are sent before the intermediate",
        pki={f"s{n}": authority("acme") for n in range(7)},
        sent=(*(f"s{n}" for n in range(7)), "mid"),
    ),
)

_ALL = (Crl(by="root"), Crl(by="mid"))

LISTS = (
    Row("M3 lists that revoke nothing", lists=_ALL, wire=True),
    Row(
        "M3 the leaf is on its issuer's list",
        "certificate_revoked",
        lists=(Crl(by="root"), Crl(by="mid", revokes=("leaf",))),
        wire=True,
    ),
    Row(
        "M3 the leaf is on its issuer's list, its issuer is the root",
        "certificate_revoked",
        pki={"leaf": client("root")},
        sent=(),
        lists=(Crl(by="root", revokes=("leaf",)),),
        wire=True,
    ),
    Row(
        "M3 the intermediate is on its issuer's list",
        "issuer_revoked",
        lists=(Crl(by="root", revokes=("mid",)),),
        wire=True,
    ),
    Row(
        "M3 the lower of two intermediates is on its issuer's list",
        "issuer_revoked",
        pki={"leaf": client("low")},
        sent=("low", "mid"),
        lists=(Crl(by="root"), Crl(by="mid", revokes=("low",))),
        wire=True,
    ),
    Row(
        "M3 the upper of two intermediates is on its issuer's list",
        "issuer_revoked",
        pki={"leaf": client("low")},
        sent=("low", "mid"),
        lists=(Crl(by="root", revokes=("mid",)),),
        wire=True,
    ),
    Row(
        "M3 a revoked intermediate as trusted one's twin",
        "issuer_revoked",
        pki={"twin": authority("root", subject="mid", key="mid")},
        sent=("twin",),
        lists=(Crl(by="root", revokes=("twin",)),),
    ),
    Row(
        "M3 a revoked intermediate beside a good one of its key does no harm",
        pki={"bad": authority("root", subject="mid", key="mid")},
        sent=("bad", "mid"),
        lists=(Crl(by="root", revokes=("bad",)),),
        wire=True,
    ),
    Row(
        "M5 the renewed intermediate's list is its key's",
        "certificate_revoked",
        pki={
            "mid": authority("root", until=-1),
            "new": authority("root", key="mid", subject="mid"),
        },
        sent=("new",),
        lists=(Crl(by="mid", revokes=("leaf",)),),
    ),
    Row(
        "M3 an intermediate as anchor, its list",
        "certificate_revoked",
        sent=(),
        trusted=("mid",),
        lists=(Crl(by="mid", revokes=("leaf",)),),
    ),
    Row(
        "M3 another authority's list has the leaf's serial number",
        lists=(Crl(by="root", revokes=("leaf",)), Crl(by="acme", revokes=("leaf", "mid"))),
        bundles=_ACME,
    ),
    Row(
        "M3 a list of the intermediate's name that its key did not sign",
        lists=(Crl(by="mid", signer="acme", revokes=("leaf",)),),
        openssl="it refuses where a list is forged",
    ),
    Row(
        "M3 an old list without the leaf beside a newer one",
        "certificate_revoked",
        lists=(Crl(by="mid"), Crl(by="mid", number=2, revokes=("leaf",), since=-60)),
    ),
    Row(
        "M3 a list that is stale still revokes",
        "certificate_revoked",
        lists=(Crl(by="mid", revokes=("leaf",), until=-60),),
    ),
    Row(
        "T15 a list that is stale, where that only warns",
        lists=(Crl(by="mid", until=-60),),
        openssl=STALE,
        wire=True,
    ),
    Row(
        "T15 a list in its last second, where stale ones refuse",
        refuse_stale=True,
        lists=(Crl(by="root"), Crl(by="mid", until=DAY)),
        at=DAY,
        openssl=LAST_SECOND,
    ),
    Row(
        "T15 a list a second late, where stale ones refuse",
        "crl_stale",
        refuse_stale=True,
        lists=(Crl(by="root"), Crl(by="mid", until=DAY)),
        at=DAY + 1,
        wire=True,
    ),
    Row(
        "M3 the root's list is stale, where stale ones refuse",
        "crl_stale",
        refuse_stale=True,
        lists=(Crl(by="root", until=-60), Crl(by="mid")),
        wire=True,
    ),
    Row(
        "M3 all lists are fresh, where stale ones refuse", refuse_stale=True, lists=_ALL, wire=True
    ),
    Row(
        "M3 the root's list is missing, where stale ones refuse",
        "crl_missing",
        refuse_stale=True,
        lists=(Crl(by="mid"),),
        wire=True,
    ),
    Row(
        "M3 the intermediate's list is missing, where stale ones refuse",
        "crl_missing",
        refuse_stale=True,
        lists=(Crl(by="root"),),
        wire=True,
    ),
    Row(
        "M3 the intermediate's list is truncated, where stale ones refuse",
        "crl_missing",
        refuse_stale=True,
        lists=(Crl(by="root"), Crl(by="mid", truncated=True)),
    ),
    Row(
        "M3 the intermediate's list is forged, where stale ones refuse",
        "crl_missing",
        refuse_stale=True,
        lists=(Crl(by="root"), Crl(by="mid", signer="acme")),
    ),
    Row(
        "M3 an intermediate as anchor needs no list of its root's",
        refuse_stale=True,
        sent=("mid", "root"),
        trusted=("mid",),
        lists=(Crl(by="mid"),),
        openssl="it looks up the anchor too",
    ),
    Row(
        "M3 an old list that is stale beside a fresh one, where stale ones refuse",
        refuse_stale=True,
        lists=(*_ALL, Crl(by="mid", since=-9 * DAY, until=-2 * DAY, number=0)),
    ),
)

_THEIRS = (Crl(by="acme"), Crl(by="acme_mid"))
_STALE = (Crl(by="acme", until=-60), Crl(by="acme_mid"))
_CUT = (Crl(by="acme", truncated=True), Crl(by="acme_mid"))


def _partner(
    name: str, code: str, theirs: tuple[Crl, ...], openssl: str = ""
) -> tuple[Row, Row, Row]:
    """A partner's list in the folder, seen by our client, by theirs, and where it only warns."""
    about = {"bundles": _ACME, "lists": (*_ALL, *theirs)}
    acme = {"leaf": "acme_leaf", "sent": ("acme_mid",)}
    return (
        Row(f"M6 a partner's list {name}: our clients", refuse_stale=True, **about, wire=True),
        Row(
            f"M6 a partner's list {name}: theirs",
            code,
            refuse_stale=True,
            **about,
            **acme,
            wire=True,
        ),
        Row(
            f"M6 a partner's list {name}: theirs, where that only warns",
            **about,
            **acme,
            openssl=openssl,
        ),
    )


# The partner's authority has our authority's very name.
_NAMESAKE = {
    "acme": root("acme", subject="root"),
    "acme_mid": authority("acme", subject="mid", serial=77),
    "acme_leaf": client("acme_mid", names=(ACME,), serial=78),
    "mid": authority("root", serial=77),
    "leaf": client("mid", names=(BILLING,), serial=78),
}

PARTNERS = (
    *_partner("is there", "", _THEIRS),
    *_partner("is stale", "crl_stale", _STALE, STALE),
    *_partner("is missing", "crl_missing", (Crl(by="acme_mid"),)),
    *_partner("is malformed", "crl_missing", _CUT),
    Row(
        "M6 a partner of our name revokes our intermediate's number: our clients",
        pki=_NAMESAKE,
        bundles=_ACME,
        lists=(*_ALL, Crl(by="acme", revokes=("acme_mid",))),
        wire=True,
    ),
    Row(
        "M6 a partner of our name revokes our leaf's number: our clients",
        pki=_NAMESAKE,
        bundles=_ACME,
        lists=(*_ALL, Crl(by="acme_mid", revokes=("acme_leaf",))),
        wire=True,
    ),
    Row(
        "M6 a partner of our name revokes its intermediate: theirs",
        "issuer_revoked",
        pki=_NAMESAKE,
        bundles=_ACME,
        leaf="acme_leaf",
        sent=("acme_mid",),
        lists=(*_ALL, Crl(by="acme", revokes=("acme_mid",))),
        wire=True,
    ),
    Row(
        "M6 a partner's intermediate of our root's name: its list counts for its leaves",
        "certificate_revoked",
        pki={"acme_mid": authority("acme", subject="root")},
        bundles=_ACME,
        leaf="acme_leaf",
        sent=("acme_mid",),
        lists=(*_ALL, Crl(by="acme_mid", revokes=("acme_leaf",))),
    ),
    Row(
        "M6 a partner of our name has no list, ours is not theirs",
        "crl_missing",
        pki=_NAMESAKE,
        bundles=_ACME,
        leaf="acme_leaf",
        sent=("acme_mid",),
        refuse_stale=True,
        lists=_ALL,
    ),
)

TRUST = (*DOMAINS, *CROSS, *SEVERAL, *LISTS, *PARTNERS)
