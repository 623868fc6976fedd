"""``type = "certificate"``: workloads that have a client certificate and nothing else."""

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
    """There is nothing to set: roles and scopes are those of ``[[workloads]]``."""


class CertificateAuthenticator:
    """Recognises whoever calls without a credential by the SPIFFE ID of the client certificate.

    The subject is the SPIFFE ID, the issuer its trust domain. A workload that ``[[workloads]]``
    does not list is known all the same, without roles or scopes: policy decides.
    """

    matchers: Collection[CredentialMatcher] = (BareCertificate(),)
    ended_by = (
        "The caller has no token, and a certificate does not end by an ID: put it on its "
        "authority's revocation list (`secure-certs revoke`)."
    )

    def __init__(self, name: str, workloads: Mapping[str, Grant]) -> None:
        """Take what is granted, by SPIFFE ID."""
        self.name = name
        self._workloads = workloads

    def authenticate(self, credentials: Credentials | None, peer: Peer | None) -> Principal | None:
        """Say who is calling; None for a certificate without a SPIFFE ID."""
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
        """Say what is accepted."""
        return (
            "client certificates with a SPIFFE ID, on calls without a credential; "
            f"{len(self._workloads)} of them have roles or scopes by [[workloads]]"
        )


CERTIFICATE = AuthenticatorType(
    CertificateSettings,
    lambda _settings, context: CertificateAuthenticator(context.name, context.workloads),
)
