"""M4, M5 and M20: what RFC 5280 asks of each certificate of a path, one item a line."""

from __future__ import annotations

from paths_pki import BILLING, DAY, authority, client, root
from paths_row import LAST_SECOND, ONE_PATH, STRENGTH, STRICT, TLS_ONE_PATH, TLS_TOO, Row

_SHORT_MID = {"mid": authority("root", until=20 * DAY)}
_SHORT_ROOT = {"root": root("root", until=20 * DAY)}
_DEEP = {
    "d1": authority("root"),
    **{f"d{number}": authority(f"d{number - 1}") for number in range(2, 10)},
}

DATES = (
    # Both ends of a validity period are in it (section 4.1.2.5).
    Row("M4 dates: the leaf in its first second", at=-5 * DAY),
    Row("M4 dates: the leaf a second before", "certificate_dates", at=-5 * DAY - 1),
    Row("M4 dates: the leaf in its last second", at=50 * DAY, openssl=LAST_SECOND, wire=True),
    Row("M4 dates: the leaf a second after", "certificate_dates", at=50 * DAY + 1, wire=True),
    Row(
        "M4 dates: the intermediate in its first second",
        pki={"mid": authority("root", since=-DAY)},
        at=-DAY,
    ),
    Row(
        "M4 dates: the intermediate a second before",
        "issuer_dates",
        pki={"mid": authority("root", since=-DAY)},
        at=-DAY - 1,
    ),
    Row(
        "M4 dates: the intermediate in its last second",
        pki=_SHORT_MID,
        at=20 * DAY,
        openssl=LAST_SECOND,
        wire=True,
    ),
    Row(
        "M4 dates: the intermediate a second after",
        "issuer_dates",
        pki=_SHORT_MID,
        at=20 * DAY + 1,
        wire=True,
    ),
    Row("M4 dates: the root in its first second", pki={"root": root("root", since=-DAY)}, at=-DAY),
    Row(
        "M4 dates: the root a second before",
        "issuer_dates",
        pki={"root": root("root", since=-DAY)},
        at=-DAY - 1,
    ),
    Row("M4 dates: the root in its last second", pki=_SHORT_ROOT, at=20 * DAY, openssl=LAST_SECOND),
    Row("M4 dates: the root a second after", "issuer_dates", pki=_SHORT_ROOT, at=20 * DAY + 1),
    Row(
        "M4 dates: the second intermediate is over",
        "issuer_dates",
        pki={**_SHORT_MID, "leaf": client("low")},
        sent=("low", "mid"),
        at=20 * DAY + 1,
        wire=True,
    ),
)

RENEWED = (
    Row(
        "M5 the intermediate is over",
        "issuer_dates",
        pki={"mid": authority("root", until=-1)},
        wire=TLS_TOO,
    ),
    Row(
        "M5 an intermediate renewed with its key, the leaf as it was",
        pki={
            "mid": authority("root", until=-1),
            "new": authority("root", key="mid", subject="mid"),
        },
        sent=("new",),
        wire=True,
    ),
    Row(
        "M5 the old intermediate beside the renewed one does no harm",
        pki={
            "mid": authority("root", until=-1),
            "new": authority("root", key="mid", subject="mid"),
        },
        sent=("new", "mid"),
        wire=True,
    ),
    Row(
        "M5 the old intermediate before the renewed one does no harm",
        pki={
            "mid": authority("root", until=-1),
            "new": authority("root", key="mid", subject="mid"),
        },
        sent=("mid", "new"),
        wire=TLS_ONE_PATH,
    ),
    Row(
        "M5 an intermediate not yet valid beside a good one does no harm",
        pki={"new": authority("root", key="mid", subject="mid", since=DAY)},
        sent=("new", "mid"),
    ),
    Row(
        "M5 an intermediate renewed with another key does not vouch for the old leaf",
        "certificate_authority",
        pki={"new": authority("root", subject="mid")},
        sent=("new",),
        wire=TLS_TOO,
    ),
    Row(
        "M5 the root is renewed with its key, the intermediate as it was",
        pki={"root": root("root", until=-1), "root2": root("root2", key="root", subject="root")},
        trusted=("root", "root2"),
        wire=TLS_ONE_PATH,
    ),
    Row(
        "M5 the root is renewed with its key, the new one stands first",
        pki={"root": root("root", until=-1), "root2": root("root2", key="root", subject="root")},
        trusted=("root2", "root"),
        wire=True,
    ),
    Row(
        "M5 a trusted intermediate is over, and its renewal is sent",
        pki={
            "mid": authority("root", until=-1),
            "new": authority("root", key="mid", subject="mid"),
        },
        sent=("new",),
        trusted=("mid", "root"),
        openssl=ONE_PATH,
    ),
)

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

_DNS_AND_ID = (BILLING, "DNS:billing.example.org")


def _constrained(
    name: str, code: str = "", *, names=(BILLING,), wire=False, openssl="", **what
) -> Row:
    return Row(
        f"M4 name constraints: {name}",
        code,
        pki={"mid": authority("root", **what), "leaf": client("mid", names=names)},
        wire=wire,
        openssl=openssl,
    )


CONSTRAINTS = (
    _constrained("the host of the URI is permitted", permitted=("URI:example.org",), wire=True),
    _constrained(
        "the host of the URI is not permitted",
        "name_constraints",
        permitted=("URI:acme.example",),
        wire=TLS_TOO,
    ),
    _constrained(
        "one of two hosts is permitted", permitted=("URI:acme.example", "URI:example.org")
    ),
    _constrained(
        "the host of the URI is excluded", "name_constraints", excluded=("URI:example.org",)
    ),
    _constrained("another host is excluded", excluded=("URI:acme.example",)),
    _constrained(
        "permitted and excluded: excluded wins",
        "name_constraints",
        permitted=("URI:example.org",),
        excluded=("URI:example.org",),
    ),
    _constrained(
        # Section 4.2.1.10: a host is that host alone, and with a leading dot its subdomains alone.
        "a dot before the host permits subdomains, not itself",
        "name_constraints",
        permitted=("URI:.example.org",),
    ),
    _constrained(
        "a host that only ends alike is not permitted",
        "name_constraints",
        permitted=("URI:ample.org",),
    ),
    _constrained(
        "a DNS name is permitted",
        names=_DNS_AND_ID,
        permitted=("DNS:example.org",),
        wire=True,
    ),
    _constrained(
        "a DNS name is not permitted",
        "name_constraints",
        names=_DNS_AND_ID,
        permitted=("DNS:acme.example",),
    ),
    _constrained(
        "a DNS name is excluded",
        "name_constraints",
        names=_DNS_AND_ID,
        excluded=("DNS:example.org",),
        wire=TLS_TOO,
    ),
    _constrained(
        "a DNS name that only ends alike is not permitted",
        "name_constraints",
        names=_DNS_AND_ID,
        permitted=("DNS:ample.org",),
    ),
    _constrained(
        "DNS names alone are constrained, and there is none", permitted=("DNS:acme.example",)
    ),
    _constrained(
        "URIs alone are constrained, beside a DNS name",
        names=_DNS_AND_ID,
        permitted=("URI:example.org",),
    ),
    _constrained("all addresses are excluded, and there is none", excluded=("IP:0.0.0.0/0",)),
    _constrained(
        "not critical, and violated all the same",
        "name_constraints",
        permitted=("URI:acme.example",),
        constraints_critical=False,
    ),
    _constrained("the subject is permitted", permitted=("CN:leaf", "URI:example.org")),
    _constrained("the subject is not permitted", "name_constraints", permitted=("CN:other",)),
    _constrained("the subject is excluded", "name_constraints", excluded=("CN:leaf",)),
    _constrained(
        "the mail address is not permitted",
        "name_constraints",
        names=(BILLING, "email:billing@acme.example"),
        permitted=("email:example.org",),
    ),
    _constrained(
        "the mail address is permitted",
        names=(BILLING, "email:billing@example.org"),
        permitted=("email:example.org",),
    ),
    *(
        Row(
            f"M4 name constraints: {uri} is in no subtree, nor surely out of one",
            "name_constraints",
            pki={
                "mid": authority("root", excluded=("URI:acme.example",)),
                "leaf": client("mid", names=(f"URI:{uri}",)),
            },
            domains=None,
            openssl=openssl,
        )
        for uri, openssl in (
            ("urn:example", ""),
            ("https://192.0.2.1/billing", "addresses are hosts like others to it"),
            ("https://[2001:db8::1]/billing", "addresses are hosts like others to it"),
        )
    ),
    Row(
        "M4 name constraints: a URI without a host is in no subtree",
        "name_constraints",
        pki={
            "mid": authority("root", permitted=("URI:example.org",)),
            "leaf": client("mid", names=("URI:urn:example",)),
        },
        domains=None,
    ),
    _constrained(
        "a wildcard covers an excluded name",
        "name_constraints",
        names=(BILLING, "DNS:*.example.org"),
        excluded=("DNS:admin.example.org",),
        openssl="a wildcard is a name like any other to it",
    ),
    Row(
        "M4 name constraints: those of the root hold too",
        "name_constraints",
        pki={"root": root("root", permitted=("URI:acme.example",))},
    ),
    Row(
        "M4 name constraints: two intermediates, each permits another host",
        "name_constraints",
        pki={
            "mid": authority("root", permitted=("URI:acme.example",)),
            "low": authority("mid", permitted=("URI:example.org",)),
            "leaf": client("low"),
        },
        sent=("low", "mid"),
    ),
    Row(
        "M4 name constraints: two intermediates, the lower is narrower",
        pki={
            "mid": authority("root", permitted=("URI:example.org", "URI:acme.example")),
            "low": authority("mid", permitted=("URI:example.org",)),
            "leaf": client("low"),
        },
        sent=("low", "mid"),
        wire=True,
    ),
    Row(
        "M4 name constraints: an intermediate's own name is outside",
        "name_constraints",
        pki={
            "mid": authority("root", permitted=("URI:example.org",)),
            "low": authority("mid", names=("URI:spiffe://acme.example",)),
            "leaf": client("low"),
        },
        sent=("low", "mid"),
    ),
)

KEYS = (
    *(
        Row(
            f"M20 the {what} has {kind}",
            "weak_key",
            pki={name: make(issuer, kind=kind)},
            trusted=("root", "spare"),
            wire=wire,
            openssl="" if kind == "rsa1024" else STRENGTH,
        )
        for what, name, make, issuer, kind, wire in (
            ("leaf", "leaf", client, "mid", "rsa1024", True),
            ("intermediate", "mid", authority, "root", "rsa1024", True),
            ("root", "root", root, "root", "rsa1024", True),
            ("leaf", "leaf", client, "mid", "rsa2048e3", True),
            ("intermediate", "mid", authority, "root", "rsa2048e3", True),
            ("leaf", "leaf", client, "mid", "p224", False),
            ("intermediate", "mid", authority, "root", "k256", False),
            ("root", "root", root, "root", "k256", False),
            ("leaf", "leaf", client, "mid", "ed25519", False),
            ("intermediate", "mid", authority, "root", "ed25519", False),
            ("leaf", "leaf", client, "mid", "dsa", False),
            ("intermediate", "mid", authority, "root", "dsa", False),
        )
    ),
    Row(
        "M20 RSA of 2048 bits is enough, in all three",
        pki={
            "root": root("root", kind="rsa2048"),
            "mid": authority("root", kind="rsa2048"),
            "leaf": client("mid", kind="rsa2048"),
        },
        wire=True,
    ),
    Row(
        "M20 P-384 and P-521",
        pki={
            "root": root("root", kind="p521"),
            "mid": authority("root", kind="p384"),
            "leaf": client("mid", kind="p384"),
        },
    ),
    *(
        Row(
            f"M20 {digest} under the {what}",
            "weak_signature",
            pki={
                "root": root("root", kind="rsa2048"),
                "mid": authority("root", kind="rsa2048"),
                name: made,
            },
            wire=True if digest == "sha1" else TLS_TOO,
        )
        for digest in ("sha1", "md5")
        for what, name, made in (
            ("leaf", "leaf", client("mid", digest=digest)),
            ("intermediate", "mid", authority("root", kind="rsa2048", digest=digest)),
        )
    ),
    Row(
        "M20 RSA-PSS under the leaf",
        pki={"mid": authority("root", kind="rsa2048"), "leaf": client("mid", digest="pss")},
        wire=True,
    ),
    Row(
        "M20 an algorithm that no software knows under the leaf",
        "certificate_authority",
        pki={"mid": authority("root", kind="rsa2048"), "leaf": client("mid", digest="unknown")},
    ),
    Row(
        "M20 an algorithm that no software knows under the intermediate",
        "certificate_authority",
        pki={
            "root": root("root", kind="rsa2048"),
            "mid": authority("root", digest="unknown"),
        },
    ),
    Row(
        "M20 an intermediate by an algorithm of the future beside a good one does no harm",
        pki={
            "root": root("root", kind="rsa2048"),
            "new": authority("root", digest="unknown", subject="mid", key="mid"),
        },
        sent=("new", "mid"),
    ),
    Row(
        "M20 an algorithm that no software knows under the root itself",
        pki={"root": root("root", kind="rsa2048", digest="unknown")},
        openssl="it does not take a root whose signature it cannot name",
    ),
    Row(
        "M20 sha1 under the root itself does not count: it is trusted for what it is",
        pki={"root": root("root", kind="rsa2048", digest="sha1")},
        wire=True,
    ),
)

EXTENSIONS = (
    *(
        Row(
            f"M4 an unknown critical extension in the {what}",
            "critical_extension",
            pki={name: made},
            wire=wire,
        )
        for what, name, made, wire in (
            ("leaf", "leaf", client("mid", unknown="critical"), TLS_TOO),
            ("intermediate", "mid", authority("root", unknown="critical"), TLS_TOO),
            ("root", "root", root("root", unknown="critical"), False),
        )
    ),
    Row(
        "M4 an unknown extension that is not critical, in all three",
        pki={
            "root": root("root", unknown="plain"),
            "mid": authority("root", unknown="plain"),
            "leaf": client("mid", unknown="plain"),
        },
        wire=True,
    ),
    Row(
        "M4 a leaf without an authority key identifier, as real ones are",
        pki={"leaf": client("mid", aki=False)},
        openssl=STRICT,
        wire=True,
    ),
    Row(
        "M4 an intermediate without an authority key identifier",
        pki={"mid": authority("root", aki=False)},
        openssl=STRICT,
    ),
    Row(
        "M4 a root without a subject key identifier",
        pki={"root": root("root", ski=False)},
        openssl=STRICT,
    ),
    Row("M4 an empty subject beside critical names", pki={"leaf": client("mid", subject="")}),
)

RFC5280 = (*DATES, *RENEWED, *ISSUERS, *USES, *CONSTRAINTS, *KEYS, *EXTENSIONS)
