"""Sets the current caller without a call, for unit tests of a servicer."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from secure_server.auth.principal import Principal
from secure_server.guard.caller import CALLER, Caller
from secure_tls.peer import Peer
from secure_tls.spiffe import SpiffeID

# RFC 5280, section 4.1.2.5: 99991231235959Z, "no well-defined expiration date".
_NO_END = 253402300799.0


@contextmanager
def as_principal(
    principal: str | Principal,
    *,
    roles: Iterable[str] = (),
    scopes: Iterable[str] = (),
    peer_spiffe_id: str = "spiffe://example.org/client/test",
) -> Iterator[Caller]:
    """Let ``current_principal`` and ``current_caller`` answer as if a guarded call were running.

    ``principal`` is a subject, or a ``Principal`` used unchanged, such as ``ANONYMOUS``;
    ``roles`` and ``scopes`` are a subject's. The peer is the holder of a certificate with
    ``peer_spiffe_id``, to which a subject's credential is bound. Raises
    ``secure_tls.SpiffeIDError`` for what is no SPIFFE ID.

    Blocks nest; each restores the caller before it. As in a real call, tasks started inside inherit
    the caller and threads do not.

    >>> from secure_server import current_principal
    >>> from secure_server.testing import as_principal
    >>> def delete_order(request, context):
    ...     if "admin" not in current_principal().roles:
    ...         raise PermissionError("Only administrators delete orders.")
    ...     return "deleted"
    >>> with as_principal("alice", roles=["admin"]):
    ...     delete_order("orders/1", None)
    'deleted'
    """
    peer = _peer(peer_spiffe_id)
    if isinstance(principal, str):
        principal = Principal(
            subject=principal,
            issuer="https://issuer.example.org",
            authenticator="testing",
            roles=frozenset(roles),
            scopes=frozenset(scopes),
            client_id=peer_spiffe_id,
            thumbprint=peer.thumbprint,
        )
    caller = Caller(peer, principal)
    outer = CALLER.set(caller)
    try:
        yield caller
    finally:
        CALLER.reset(outer)


def _peer(spiffe_id: str) -> Peer:
    """Return a peer as ``secure_tls.parse_peer`` makes it of a certificate with only this ID."""
    digest = hashlib.sha256(spiffe_id.encode()).digest()
    return Peer(
        spiffe_id=spiffe_id,
        trust_domain=SpiffeID.parse(spiffe_id).trust_domain,
        uri_sans=(spiffe_id,),
        dns_sans=(),
        subject="CN=test",
        thumbprint=base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        issuer=b"",
        serial=1,
        not_before=0.0,
        not_after=_NO_END,
    )
