"""T7 to T12: what the leaf itself must say; and what real products make."""

from __future__ import annotations

from paths_pki import BILLING, Vector, authority, client, root
from paths_row import IDENTITY, TLS_TOO, Row


def _leaf(name: str, code: str, openssl: str = "", *, wire: bool | str = False, **says) -> Row:
    return Row(name, code, pki={"leaf": client("mid", **says)}, openssl=openssl, wire=wire)


def _id(uri: str) -> Row:
    return _leaf(f"T11 {uri}", "spiffe_id", IDENTITY, names=(f"URI:{uri}",))


LEAVES = (
    _leaf("T6 for servers only", "eku", uses=("server",), wire=TLS_TOO),
    _leaf("T7 no EKU", "eku", IDENTITY, uses=None, wire=True),
    _leaf("T7 any EKU alone", "eku", uses=("any",), wire=TLS_TOO),
    _leaf("for clients and servers", "", uses=("client", "server"), wire=True),
    _leaf(
        "T8 the leaf is an authority",
        "is_ca",
        ca=True,
        usage=("sign", "cert"),
        wire=True,
        openssl=IDENTITY,
    ),
    _leaf("key usage: no digitalSignature", "key_usage", usage=("crl",)),
    _leaf("key usage: may sign certificates", "key_usage", usage=("sign", "cert")),
    _leaf("key usage: none at all", "", usage=None),
    _leaf("basic constraints: none at all", "", ca=None),
    _leaf("T9 a common name only", "no_san", IDENTITY, names=(), wire=True),
    _leaf("T9 a mail address only", "no_san", IDENTITY, names=("email:a@example.org",)),
    _leaf(
        "T10 two SPIFFE IDs",
        "many_uri_sans",
        IDENTITY,
        names=(BILLING, "URI:spiffe://example.org/client/admin"),
        wire=True,
    ),
    _leaf(
        "T10 a SPIFFE ID beside another URI",
        "many_uri_sans",
        IDENTITY,
        names=(BILLING, "URI:https://example.org/billing"),
    ),
    _id("spiffe://example.org"),
    _id("spiffe://example.org/client/../admin"),
    _id("spiffe://EXAMPLE.org/client/billing"),
    _id("spiffe://example.org:443/client/billing"),
    _id("spiffe://example.org/client/billing?admin"),
    _id("SPIFFE://example.org/client/billing"),
    _leaf(
        "a URI with a space", "uri_san", names=("URI:https://example.org/a b",), openssl=IDENTITY
    ),
    _leaf("a DNS name with a slash", "dns_san", names=(BILLING, "DNS:a/b"), openssl=IDENTITY),
)

_STEP = {
    "root": Vector("step-ca/root_ca.crt"),
    "mid": Vector("step-ca/uri.crt", 1),
    "leaf": Vector("step-ca/uri.crt"),
    "dns": Vector("step-ca/dns.crt"),
    "mail": Vector("step-ca/mail.crt"),
}
_STEP_AT = "2026-11-28T02:21:59+00:00"
_SPIRE = {"root": Vector("spire/bundle.pem"), "leaf": Vector("spire/client.pem")}
_MANAGED = {
    "mid": Vector("cert-manager-style/spf.pem", 1),
    "leaf": Vector("cert-manager-style/spf.pem"),
    "dns": Vector("cert-manager-style/cli.pem"),
}
_MANAGED_AT = "2026-11-29T00:00:00+00:00"
# What mkcert makes: no cRLSign, no basic constraints in leaves, DNS names only.
_MKCERT = {
    "root": root("root", kind="rsa3072", usage=("cert",), path_length=0),
    "leaf": client(
        "root", kind="rsa2048", ca=None, uses=("client", "server"), names=("DNS:demo-client",)
    ),
}

PRODUCTS = (
    Row("SPIRE: a workload's certificate", pki=_SPIRE, sent=(), at="2026-11-28T02:28:30+00:00"),
    Row(
        "SPIRE: an hour later",
        "certificate_dates",
        pki=_SPIRE,
        sent=(),
        at="2026-11-28T03:28:30+00:00",
    ),
    Row(
        "SPIRE: another domain's bundle",
        "certificate_authority",
        pki={**_SPIRE, "other": root("other")},
        sent=(),
        bundles={"example.org": ("other",)},
        at="2026-11-28T02:28:30+00:00",
    ),
    Row("step-ca: a SPIFFE ID", pki=_STEP, at=_STEP_AT),
    Row("step-ca: a DNS name", pki=_STEP, leaf="dns", domains=None, at=_STEP_AT),
    Row(
        "step-ca: a mail address",
        "no_san",
        pki=_STEP,
        leaf="mail",
        domains=None,
        at=_STEP_AT,
        openssl=IDENTITY,
    ),
    Row(
        "step-ca: with its list",
        pki=_STEP,
        leaf="dns",
        domains=None,
        lists=(Vector("step-ca/crl.der"),),
        at=_STEP_AT,
        openssl="the list names a distribution point, and the leaf none",
    ),
    Row(
        "cert-manager: a SPIFFE ID, its issuer as anchor",
        pki=_MANAGED,
        trusted=("mid",),
        domains=("cluster.local",),
        at=_MANAGED_AT,
    ),
    Row(
        "cert-manager: a DNS name, its issuer as anchor",
        pki=_MANAGED,
        leaf="dns",
        trusted=("mid",),
        domains=None,
        at=_MANAGED_AT,
    ),
    Row("mkcert: a DNS name", pki=_MKCERT, sent=(), domains=None),
    Row(
        "mkcert: an intermediate under its root",
        "path_length",
        pki={**_MKCERT, "mid": authority("root"), "leaf": client("mid")},
        domains=None,
    ),
)
