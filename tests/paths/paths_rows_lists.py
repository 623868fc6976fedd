"""M3 and T15: revocation lists of every authority on a path."""

from __future__ import annotations

from paths_pki import DAY, Crl, authority, client
from paths_row import LAST_SECOND, STALE, Row

_ACME = {"acme.example": ("acme",)}
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
        "M3 an intermediate as anchor, the list of its root is stale",
        trusted=("mid", "root"),
        lists=(Crl(by="root", since=-2 * DAY, until=-DAY), Crl(by="mid")),
        refuse_stale=True,
        openssl="it looks up the anchor too",
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
