"""The servicer of ``secure_api.tokens.v1.TokenService``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import Connection

from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_server.auth.authenticators import Authenticators
from secure_server.auth.identity import Identity
from secure_server.auth.local_issuer import LocalIssuerAuthenticator
from secure_server.auth.plugin import Grant
from secure_server.guard import current_caller
from secure_server.services.cursors import Cursors
from secure_server.services.events import log_event
from secure_server.services.failures import NotAllowedError, answers
from secure_server.services.introspection import Introspection
from secure_server.services.messages import timestamp
from secure_server.services.revocable import Revocable
from secure_server.services.revocation_methods import RevocationMethods
from secure_server.tokens.errors import MisusedError, SessionError, SessionRefusedError
from secure_server.tokens.issuer import Issuer
from secure_server.tokens.key_ring import KeyRing
from secure_server.tokens.revocations import Revocations
from secure_server.tokens.session import Session
from secure_server.tokens.session_endings import SessionEndings
from secure_server.tokens.sessions import Sessions
from secure_server.users import Account, Accounts, Logins, UserError
from secure_server.users.errors import NotFoundError
from secure_server.users.rules import is_user_name
from secure_tls.peer import Peer


class TokenService(RevocationMethods):
    """Issues and introspects tokens. The policy has admitted the caller, who for some methods needs
    no token.
    """

    def __init__(
        self,
        *,
        accounts: Accounts,
        logins: Logins,
        sessions: Sessions,
        endings: SessionEndings,
        issuer: Issuer,
        key_ring: Callable[[], KeyRing],
        verifier: LocalIssuerAuthenticator,
        authenticators: Authenticators,
        revocations: Revocations,
        workloads: Mapping[str, Grant],
        cursors: Cursors,
        clock: Callable[[], float],
    ) -> None:
        """``verifier`` verifies the tokens of ``issuer``, ``authenticators`` those of every issuer;
        ``workloads`` are by SPIFFE ID; ``clock`` gives seconds since the epoch.
        """
        super().__init__(
            accounts=accounts,
            sessions=sessions,
            endings=endings,
            revocable=Revocable(verifier, authenticators),
            revocations=revocations,
            cursors=cursors,
            issuer=issuer.name,
        )
        self._logins = logins
        self._issuer = issuer
        self._key_ring = key_ring
        self._workloads = workloads
        self._introspection = Introspection(verifier, revocations, clock=clock)

    @answers
    def Login(self, request: pb.LoginRequest, context: Any) -> pb.Tokens:
        peer = _peer()
        opened: list[Session] = []

        def open_session(connection: Connection, account: Account) -> None:
            opened.append(
                self._sessions.open(account.uid, peer.spiffe_id or "", connection=connection)
            )

        try:
            account = self._logins.log_in(
                request.user_name, request.password, request.new_password, on_success=open_session
            )
        except UserError as error:
            # Users type passwords into the wrong field: what is no user name is not logged.
            user = request.user_name if is_user_name(request.user_name) else None
            log_event("log-in refused", user=user, reason=error.code)
            raise
        log_event("logged in", user=account.name, session=opened[0].session_id)
        return self._tokens(account, opened[0], peer)

    @answers
    def Refresh(self, request: pb.RefreshRequest, context: Any) -> pb.Tokens:
        peer = _peer()
        try:
            session = self._sessions.rotate(request.refresh_token, peer.spiffe_id or "")
        except SessionError as error:
            ended = error if isinstance(error, MisusedError) else None
            log_event(
                "refresh refused",
                reason=error.code,
                session=ended.session_id if ended else None,
                user=ended.user_uid if ended else None,
            )
            raise
        try:
            account = self._accounts.get_by_uid(session.user_uid)
        except NotFoundError:  # the user was deleted meanwhile, and the session with it
            raise SessionRefusedError("The user was deleted.") from None
        log_event("session renewed", user=account.name, session=session.session_id)
        return self._tokens(account, session, peer)

    @answers
    def IssueToken(
        self,
        request: pb.IssueTokenRequest,
        context: Any,
    ) -> pb.Tokens:
        peer = _peer()
        workload = self._workloads.get(peer.spiffe_id or "")
        wanted = frozenset(request.scopes)
        if workload is None or not wanted <= workload.scopes:
            raise NotAllowedError
        token = self._issuer.issue(
            peer.spiffe_id or "",
            client_id=peer.spiffe_id or "",
            thumbprint=peer.thumbprint,
            roles=workload.roles,
            scopes=wanted or workload.scopes,
        )
        log_event(
            "token issued",
            subject=Identity(self._issuer.name, peer.spiffe_id or ""),
            jti=token.token_id,
            scopes=sorted(wanted or workload.scopes),
        )
        return pb.Tokens(
            access_token=token.text, access_token_expire_time=timestamp(token.expires_at)
        )

    def WhoAmI(self, request: pb.WhoAmIRequest, context: Any) -> pb.WhoAmIResponse:
        caller = current_caller()
        principal, peer = caller.principal, caller.peer
        response = pb.WhoAmIResponse(
            token=pb.WhoAmIResponse.Token(
                subject=principal.subject,
                issuer=principal.issuer,
                authenticator=principal.authenticator,
                roles=sorted(principal.roles),
                scopes=sorted(principal.scopes),
                client_id=principal.client_id,
                token_id=principal.token_id,
            )
        )
        if principal.expires_at is not None:
            response.token.expire_time.CopyFrom(timestamp(principal.expires_at))
        if peer is not None:
            response.certificate.spiffe_id = peer.spiffe_id or ""
            response.certificate.subject = peer.subject
            response.certificate.thumbprint = peer.thumbprint
            response.certificate.expire_time.CopyFrom(timestamp(peer.not_after))
        return response

    def GetKeySet(self, request: pb.GetKeySetRequest, context: Any) -> pb.KeySet:
        return pb.KeySet(keys=[pb.Key(**jwk) for jwk in self._key_ring().public_jwks()])

    def Introspect(
        self,
        request_iterator: Iterator[pb.IntrospectRequest],
        context: Any,
    ) -> Iterator[pb.IntrospectResponse]:
        return self._introspection.answer(request_iterator, context)

    def _tokens(self, account: Account, session: Session, peer: Peer) -> pb.Tokens:
        token = self._issuer.issue(
            account.resource_name,
            client_id=peer.spiffe_id or "",
            thumbprint=peer.thumbprint,
            roles=account.roles,
            session_id=session.session_id,
            issued_at=session.issued_at,
        )
        return pb.Tokens(
            access_token=token.text,
            access_token_expire_time=timestamp(token.expires_at),
            refresh_token=session.refresh_token,
            refresh_token_expire_time=timestamp(session.refresh_expires_at),
        )


def _peer() -> Peer:
    peer = current_caller().peer
    if peer is None:
        raise NotAllowedError  # a token is bound to the certificate of its caller
    return peer
