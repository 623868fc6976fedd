"""M20 and M4: keys, signatures, and extensions that are unknown or missing."""

from __future__ import annotations

from paths_pki import authority, client, root
from paths_row import STRENGTH, STRICT, TLS_TOO, Row

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
