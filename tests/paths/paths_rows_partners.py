"""M6: what a partner's lists, and a partner of our name, do to our clients and to theirs."""

from __future__ import annotations

from paths_pki import ACME, BILLING, Crl, authority, client, root
from paths_row import STALE, Row

_ACME = {"acme.example": ("acme",)}
_OURS = (Crl(by="root"), Crl(by="mid"))

_THEIRS = (Crl(by="acme"), Crl(by="acme_mid"))
_STALE = (Crl(by="acme", until=-60), Crl(by="acme_mid"))
_CUT = (Crl(by="acme", truncated=True), Crl(by="acme_mid"))


def _partner(
    name: str, code: str, theirs: tuple[Crl, ...], openssl: str = ""
) -> tuple[Row, Row, Row]:
    """A partner's list in the folder, seen by our client, by theirs, and where it only warns."""
    about = {"bundles": _ACME, "lists": (*_OURS, *theirs)}
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
        lists=(*_OURS, Crl(by="acme", revokes=("acme_mid",))),
        wire=True,
    ),
    Row(
        "M6 a partner of our name revokes our leaf's number: our clients",
        pki=_NAMESAKE,
        bundles=_ACME,
        lists=(*_OURS, Crl(by="acme_mid", revokes=("acme_leaf",))),
        wire=True,
    ),
    Row(
        "M6 a partner of our name revokes its intermediate: theirs",
        "issuer_revoked",
        pki=_NAMESAKE,
        bundles=_ACME,
        leaf="acme_leaf",
        sent=("acme_mid",),
        lists=(*_OURS, Crl(by="acme", revokes=("acme_mid",))),
        wire=True,
    ),
    Row(
        "M6 a partner's intermediate of our root's name: its list counts for its leaves",
        "certificate_revoked",
        pki={"acme_mid": authority("acme", subject="root")},
        bundles=_ACME,
        leaf="acme_leaf",
        sent=("acme_mid",),
        lists=(*_OURS, Crl(by="acme_mid", revokes=("acme_leaf",))),
    ),
    Row(
        "M6 a partner of our name has no list, ours is not theirs",
        "crl_missing",
        pki=_NAMESAKE,
        bundles=_ACME,
        leaf="acme_leaf",
        sent=("acme_mid",),
        refuse_stale=True,
        lists=_OURS,
    ),
)
