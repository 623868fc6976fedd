"""M4, T3, T12, T17: whose authorities count for whom, and cross-certificates."""

from __future__ import annotations

from paths_pki import ACME, Cert, authority, client, root
from paths_row import IDENTITY, TLS_TOO, Row

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
