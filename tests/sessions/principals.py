"""Principals of tokens."""

from secure_server.auth import Principal

ISSUER = "https://us.example.org"
NOW = 1_800_000_000


def token(token_id="", session_id="", *, subject="users/u1", client="", iat=NOW, issuer=ISSUER):
    """The principal of a token of this server, or of another issuer."""
    return Principal(
        subject=subject,
        issuer=issuer,
        authenticator="jwt",
        client_id=client,
        token_id=token_id,
        session_id=session_id,
        claims={"iat": iat},
    )
