"""M4: name constraints (RFC 5280, section 4.2.1.10)."""

from __future__ import annotations

from paths_pki import BILLING, authority, client, root
from paths_row import TLS_TOO, Row

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
