"""What both sides of a run need: certificates, the issuer's key, and good and bad tokens."""

from __future__ import annotations

import ipaddress
import json
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from secure_server.tokens.issuer import Issuer
from secure_server.tokens.key_file import KeyFile
from secure_server.tokens.key_ring import KeyRing
from secure_server.tokens.signing_key import SigningKey
from secure_tls import Authority, parse_peer

ISSUER = "https://benchmark.example.org"
AUDIENCE = "benchmark"
LIFETIME = 3600
"""Seconds; longer than a run."""

ROLE = "benchmark"
"""The role that the policy asks for."""


@dataclass(frozen=True)
class Tokens:
    """Access tokens for the one client; only ``good`` is accepted."""

    good: str
    not_allowed: str
    expired: str
    foreign: str
    forged: str
    malformed: str


def prepare(folder: Path) -> Tokens:
    """Write certificates and the issuer's key into the folder, and make the tokens."""
    authority = Authority.create("example.org")
    server = authority.issue_server("server", ["localhost"], [ipaddress.ip_address("127.0.0.1")])
    client = authority.issue_client("client")
    for name, data in (
        ("ca.pem", authority.certificate_pem),
        ("server.pem", server.certificate_pem),
        ("server.key", server.private_key_pem),
        ("client.pem", client.certificate_pem),
        ("client.key", client.private_key_pem),
    ):
        path = folder / name
        path.touch(mode=0o600)
        path.write_bytes(data)
    tokens = _tokens(key_ring(folder), parse_peer(client.certificate_pem).thumbprint)
    (folder / "tokens.json").write_text(json.dumps(asdict(tokens)), encoding="utf-8")
    return tokens


def read_tokens(folder: Path) -> Tokens:
    """Return the tokens that ``prepare`` made."""
    return Tokens(**json.loads((folder / "tokens.json").read_text(encoding="utf-8")))


def key_ring(folder: Path) -> KeyRing:
    """Return the issuer's keys, made on first use."""
    return KeyFile(folder / "signing-key.pem").open(time.time())


def _tokens(ring: KeyRing, thumbprint: str) -> Tokens:
    def issue(ring: KeyRing, issuer: str = ISSUER, age: float = 0.0, role: str = ROLE) -> str:
        return (
            Issuer(
                name=issuer,
                audience=AUDIENCE,
                lifetime=LIFETIME,
                key_ring=lambda: ring,
                clock=lambda: time.time() - age,
            )
            .issue(
                "users/alice",
                client_id="spiffe://example.org/client/client",
                thumbprint=thumbprint,
                roles=[role],
                session_id=str(uuid.uuid4()),
            )
            .text
        )

    good = issue(ring)
    stranger = KeyRing([SigningKey.generate(0, 0)], time.time())
    # The good token with a well-formed signature of another key.
    signature = issue(stranger).rpartition(".")[2]
    return Tokens(
        good=good,
        not_allowed=issue(ring, role="other"),
        expired=issue(ring, age=2 * LIFETIME),
        foreign=issue(stranger, issuer="https://foreign.example.org"),
        forged=f"{good.rpartition('.')[0]}.{signature}",
        malformed=good.replace(".", "~"),
    )
