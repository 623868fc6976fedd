"""M4: what an authority must be to issue (RFC 5280, sections 4.2.1.3, 4.2.1.9 and 4.2.1.12)."""

from __future__ import annotations

from paths_pki import authority, client, root
from paths_row import STRICT, TLS_TOO, Row

_DEEP = {
    "d1": authority("root"),
    **{f"d{number}": authority(f"d{number - 1}") for number in range(2, 10)},
}

ISSUERS = (
    Row(
        "M4 basic constraints: the issuer is no authority",
        "issuer_usage",
        pki={"mid": authority("root", ca=False)},
        wire=TLS_TOO,
    ),
    Row(
        "M4 basic constraints: the issuer has none",
        "issuer_usage",
        pki={"mid": authority("root", ca=None)},
    ),
    Row(
        "M4 basic constraints: a client's certificate as issuer",
        "issuer_usage",
        pki={"mid": client("root", names=("URI:spiffe://example.org/client/eve",))},
    ),
    Row(
        "M4 basic constraints: a root that is no authority",
        "issuer_usage",
        pki={"root": root("root", ca=None)},
    ),
    Row(
        "M4 key usage: an intermediate that may not sign certificates",
        "issuer_usage",
        pki={"mid": authority("root", usage=("sign", "crl"))},
        wire=TLS_TOO,
    ),
    Row(
        "M4 key usage: a root that may not sign certificates",
        "issuer_usage",
        pki={"root": root("root", usage=("crl",))},
    ),
    Row(
        "M4 basic constraints: not critical, as real ones are",
        pki={"mid": authority("root", ca_critical=False)},
        openssl=STRICT,
        wire=True,
    ),
    Row(
        "M4 key usage: an intermediate without any",
        pki={"mid": authority("root", usage=None)},
        openssl=STRICT,
    ),
    Row(
        "M4 key usage: a root without any, as real ones are",
        pki={"root": root("root", usage=None)},
        openssl=STRICT,
        wire=True,
    ),
    Row(
        "M4 path length: 0 and no intermediate",
        pki={"leaf": client("root"), "root": root("root", path_length=0)},
        sent=(),
    ),
    Row(
        "M4 path length: 0 and an intermediate",
        "path_length",
        pki={"root": root("root", path_length=0)},
        wire=True,
    ),
    Row("M4 path length: 1 and an intermediate", pki={"root": root("root", path_length=1)}),
    Row(
        "M4 path length: 1 and two intermediates",
        "path_length",
        pki={"root": root("root", path_length=1), "leaf": client("low")},
        sent=("low", "mid"),
    ),
    Row(
        "M4 path length: 0 in the intermediate above the leaf",
        pki={"mid": authority("root", path_length=0)},
        wire=True,
    ),
    Row(
        "M4 path length: 0 in the intermediate above another",
        "path_length",
        pki={"mid": authority("root", path_length=0), "leaf": client("low")},
        sent=("low", "mid"),
    ),
    Row(
        "M4 path length: an intermediate allows itself more than its root does",
        "path_length",
        pki={
            "root": root("root", path_length=1),
            "mid": authority("root", path_length=5),
            "leaf": client("low"),
        },
        sent=("low", "mid"),
    ),
    Row(
        "M4 path length: a self-issued intermediate counts too",
        "path_length",
        pki={
            "root": root("root", path_length=0),
            "rolled": authority("root", subject="root"),
            "leaf": client("rolled"),
        },
        sent=("rolled",),
        openssl="it does not count those (RFC 5280, section 6.1.4, l): ours is the stricter rule",
    ),
    Row(
        "M4 eight intermediates",
        pki={**_DEEP, "leaf": client("d8")},
        sent=tuple(f"d{n}" for n in range(1, 9)),
        wire=True,
    ),
    Row(
        "M4 nine intermediates",
        "path",
        pki={**_DEEP, "leaf": client("d9")},
        sent=tuple(f"d{n}" for n in range(1, 10)),
        openssl="its limit is a hundred certificates",
        wire=True,
    ),
)

USES = (
    Row(
        "M4 EKU: an intermediate for servers only",
        "issuer_eku",
        pki={"mid": authority("root", uses=("server",))},
        wire=TLS_TOO,
    ),
    Row("M4 EKU: an intermediate for clients", pki={"mid": authority("root", uses=("client",))}),
    Row(
        "M4 EKU: an intermediate for any use",
        pki={"mid": authority("root", uses=("any",))},
        openssl="any use is none to it",
        wire="any use is none to TLS",
    ),
    Row(
        "M4 EKU: the upper of two intermediates for servers only",
        "issuer_eku",
        pki={
            "mid": authority("root", uses=("server",)),
            "low": authority("mid", uses=("client",)),
            "leaf": client("low"),
        },
        sent=("low", "mid"),
    ),
    Row(
        "M4 EKU: the lower of two intermediates for servers only",
        "issuer_eku",
        pki={
            "mid": authority("root", uses=("client", "server")),
            "low": authority("mid", uses=("server",)),
            "leaf": client("low"),
        },
        sent=("low", "mid"),
    ),
    Row(
        "M4 EKU: a root for servers only",
        "issuer_eku",
        pki={"root": root("root", uses=("server",))},
    ),
)
