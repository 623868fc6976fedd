"""``type = "certificate"``: workloads that present a client certificate and no token."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from secure_server.auth.credentials import Credentials
from secure_server.auth.matchers import BareCertificate, CredentialMatcher
from secure_server.auth.plugin import AuthenticatorType, Grant
from secure_server.auth.principal import Principal
from secure_server.fields import Section
from secure_tls.peer import Peer

_NOTHING = Grant()


class CertificateSettings(Section):
    """No settings of its own: ``[[workloads]]`` grants roles and scopes."""


class CertificateAuthenticator:
    """Recognises callers without a credential by the SPIFFE ID of their client certificate.

    The subject is the SPIFFE ID, the issuer its trust domain. A workload that ``[[workloads]]``
    does not list is recognised too, without roles or scopes: policy decides about it.
    """

    matchers: Collection[CredentialMatcher] = (BareCertificate(),)
    ended_by = (
        "The caller has no token whose ID could be revoked: put the certificate on its "
        "authority's revocation list (`secure-certs revoke`)."
    )

    def __init__(self, name: str, workloads: Mapping[str, Grant]) -> None:
        """``workloads`` maps SPIFFE IDs to what they are granted."""
        self.name = name
        self._workloads = workloads

    def authenticate(self, credentials: Credentials | None, peer: Peer | None) -> Principal | None:
        """Return the workload; None for a certificate without a SPIFFE ID."""
        if credentials is not None or peer is None or peer.spiffe_id is None:
            return None
        grant = self._workloads.get(peer.spiffe_id, _NOTHING)
        return Principal(
            subject=peer.spiffe_id,
            issuer=f"spiffe://{peer.trust_domain}",
            authenticator=self.name,
            roles=grant.roles,
            scopes=grant.scopes,
            client_id=peer.spiffe_id,
            expires_at=peer.not_after,
            thumbprint=peer.thumbprint,
        )

    def check(self) -> str:
        """Describe which certificates are accepted."""
        return (
            "client certificates with a SPIFFE ID, on calls without a credential; "
            f"{len(self._workloads)} of them have roles or scopes by [[workloads]]"
        )


CERTIFICATE = AuthenticatorType(
    CertificateSettings,
    lambda _settings, context: CertificateAuthenticator(context.name, context.workloads),
)
