"""The methods of ``TokenService`` that list sessions and revoke tokens, users and clients."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.empty_pb2 import Empty

from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceServicer
from secure_server.auth.identity import Identity
from secure_server.auth.principal import Principal
from secure_server.guard import current_principal
from secure_server.services.cursors import Cursors
from secure_server.services.events import log_event
from secure_server.services.failures import InvalidRequestError, NotAllowedError, answers
from secure_server.services.messages import timestamp
from secure_server.services.revocable import Revocable
from secure_server.tokens.revocations import Revocations
from secure_server.tokens.session import OpenSession
from secure_server.tokens.session_endings import SessionEndings
from secure_server.tokens.sessions import Sessions
from secure_server.users import ADMIN, Accounts
from secure_server.users.errors import FailedPreconditionError, NotFoundError
from secure_server.users.rules import is_user_name, parse_resource_name
from secure_tls import SpiffeID, SpiffeIDError

_DEFAULT_PAGE, _LARGEST_PAGE = 50, 1000
_MOST_TOKEN_ID = 512  # characters, as in every claim
_SESSION = re.compile(r"users/(-|[a-z0-9-]{1,63})/sessions/([0-9a-f-]{36})", re.ASCII)
_ANY_USER = "-"


class SessionNotFoundError(NotFoundError):
    """There is no such session, or the caller may not know of it."""

    code = "SESSION_NOT_FOUND"


class NoSessionError(FailedPreconditionError):
    """The call's token belongs to no session of this server."""

    code = "NO_SESSION"


class RevocationMethods(TokenServiceServicer):
    """Revokes. The policy has admitted the caller; here only the *own record* rule is checked."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        sessions: Sessions,
        endings: SessionEndings,
        revocable: Revocable,
        revocations: Revocations,
        cursors: Cursors,
        issuer: str,
    ) -> None:
        """``issuer`` is this server's own: its subjects ``users/NAME`` are the users of this
        server.
        """
        self._accounts = accounts
        self._sessions = sessions
        self._endings = endings
        self._revocable = revocable
        self._revocations = revocations
        self._cursors = cursors
        self._issued_by = issuer

    @answers
    def Logout(self, request: pb.LogoutRequest, context: Any) -> Empty:
        principal = current_principal()
        if principal.session_id and principal.issuer == self._issued_by:
            self._endings.end(principal.session_id)
        else:
            ends = self._revocable.end_of_caller(principal)
            self._revocations.revoke_token(principal.issuer, principal.token_id, ends)
        log_event(
            "logged out",
            subject=principal.identity,
            jti=principal.token_id,
            session=principal.session_id,
        )
        return Empty()

    @answers
    def RevokeToken(self, request: pb.RevokeTokenRequest, context: Any) -> Empty:
        if request.WhichOneof("revoked") == "token_id":
            return self._revoke_token_id(request.issuer or self._issued_by, request.token_id)
        if request.issuer:
            raise InvalidRequestError(
                "issuer", "`issuer` goes with `token_id` alone: a token names its own."
            )
        if (session := self._sessions.of_refresh_token(request.token)) is not None:
            return self._end_session_of(session)
        principal = current_principal()
        token = self._revocable.verified(request.token)
        if token is None:
            return Empty()  # RFC 7009, section 2.2: an invalid token needs no revocation
        if token.identity != principal.identity and not _is_admin(principal):
            raise NotAllowedError
        ends = self._revocable.end_of(token)
        self._revocations.revoke_token(token.issuer, token.token_id, ends)
        log_event("token revoked", subject=token.identity, jti=token.token_id)
        return Empty()

    def _end_session_of(self, session: OpenSession) -> Empty:
        """End the session that a refresh token belongs to (RFC 7009, section 2.1)."""
        principal = current_principal()
        owner = self._accounts.get_by_uid(session.user_uid).name
        if owner != self._user_name(principal) and not _is_admin(principal):
            raise NotAllowedError
        return self._end(session.session_id, owner)

    def _end(self, session_id: str, owner: str) -> Empty:
        self._endings.end(session_id)
        log_event("session revoked", user=owner, session=session_id)
        return Empty()

    def _revoke_token_id(self, issuer: str, token_id: str) -> Empty:
        if not 0 < len(token_id) <= _MOST_TOKEN_ID:
            raise InvalidRequestError(
                "token_id", f"`token_id` has 1 to {_MOST_TOKEN_ID} characters."
            )
        principal = current_principal()
        # An ID does not tell whose token it is, so a user may revoke only that of the call.
        if (principal.issuer, principal.token_id) == (issuer, token_id):
            ends = self._revocable.end_of_caller(principal)
            self._revocations.revoke_token(issuer, token_id, ends)
        elif _is_admin(principal):
            lifetime = self._revocable.lifetime_of(issuer)
            self._revocations.revoke_token(issuer, token_id, lifetime=lifetime)
        else:
            raise NotAllowedError
        log_event("token revoked", issuer=issuer, jti=token_id)
        return Empty()

    @answers
    def ListSessions(
        self, request: pb.ListSessionsRequest, context: Any
    ) -> pb.ListSessionsResponse:
        name = parse_resource_name(request.parent, field="parent")
        if request.page_size < 0:
            raise InvalidRequestError("page_size", "`page_size` must not be negative.")
        size = min(request.page_size or _DEFAULT_PAGE, _LARGEST_PAGE)
        user_uid = self._uid_of(name)
        caller, parent = current_principal().identity, f"users/{name}"
        after = (0.0, "")
        if request.page_token:
            position = self._cursors.open("page_token", caller, request.page_token, parent=parent)
            create_time, _, session_id = position.partition(" ")
            after = (float(create_time), session_id)
        page = self._sessions.of_user(user_uid, after=after, limit=size + 1)
        token = ""
        if len(page) > size:
            page = page[:size]
            last = f"{page[-1].create_time!r} {page[-1].session_id}"
            token = self._cursors.seal("page_token", caller, last, parent=parent)
        return pb.ListSessionsResponse(
            sessions=[self._message(name, session) for session in page], next_page_token=token
        )

    @answers
    def RevokeSession(self, request: pb.RevokeSessionRequest, context: Any) -> Empty:
        match = _SESSION.fullmatch(request.name)
        if match is None:
            raise InvalidRequestError(
                "name", "`name` must be `users/`, a user name or `-`, `/sessions/` and a session."
            )
        user, session_id = match.groups()
        principal = current_principal()
        me, is_admin = self._user_name(principal), _is_admin(principal)
        if user not in {_ANY_USER, me} and not is_admin:
            raise NotAllowedError
        session = self._sessions.find(session_id)
        owner = None if session is None else self._accounts.get_by_uid(session.user_uid).name
        # A session of another user gets the same answer as one that does not exist.
        if owner is None or user not in {_ANY_USER, owner} or not (is_admin or owner == me):
            raise SessionNotFoundError("There is no such session. List the sessions of the user.")
        return self._end(session_id, owner)

    @answers
    def RevokeOtherSessions(
        self, request: pb.RevokeOtherSessionsRequest, context: Any
    ) -> pb.RevokeOtherSessionsResponse:
        principal = current_principal()
        me = self._user_name(principal)
        if me is None or not principal.session_id:
            raise NoSessionError("The call's token belongs to no session: log in first.")
        ended = self._endings.end_others(self._accounts.get(me).uid, principal.session_id)
        log_event("other sessions revoked", user=me, session=principal.session_id, ended=ended)
        return pb.RevokeOtherSessionsResponse(ended_sessions=ended)

    @answers
    def RevokeUser(self, request: pb.RevokeUserRequest, context: Any) -> pb.RevokeUserResponse:
        name = parse_resource_name(request.name)
        ended = self._endings.revoke_user(
            self._uid_of(name), Identity(self._issued_by, f"users/{name}")
        )
        log_event("user revoked", user=name, ended=ended)
        return pb.RevokeUserResponse(ended_sessions=ended)

    @answers
    def RevokeClient(
        self, request: pb.RevokeClientRequest, context: Any
    ) -> pb.RevokeClientResponse:
        principal = current_principal()
        if not _is_admin(principal):
            raise NotAllowedError  # even where the operator's policy admits the caller
        try:
            client_id = str(SpiffeID.parse(request.client_id))
        except SpiffeIDError as error:
            raise InvalidRequestError(
                "client_id", f"`client_id` must be a SPIFFE ID. {error}"
            ) from None
        ended = self._endings.revoke_client(client_id)
        log_event("client revoked", client=client_id, ended=ended)
        return pb.RevokeClientResponse(ended_sessions=ended)

    def _uid_of(self, name: str) -> str:
        """Return a user's ``uid``. Raises ``NotAllowedError`` for other users, existing or not."""
        principal = current_principal()
        if not _is_admin(principal) and self._user_name(principal) != name:
            raise NotAllowedError
        return self._accounts.get(name).uid

    def _user_name(self, principal: Principal) -> str | None:
        """Return the caller's user name; None where it is no user of this server."""
        prefix, _, name = principal.subject.partition("/")
        is_ours = principal.issuer == self._issued_by and prefix == "users" and is_user_name(name)
        return name if is_ours else None

    def _message(self, name: str, session: OpenSession) -> pb.Session:
        principal = current_principal()
        mine = (principal.issuer, principal.session_id) == (self._issued_by, session.session_id)
        return pb.Session(
            name=f"users/{name}/sessions/{session.session_id}",
            client_id=session.spiffe_id,
            create_time=timestamp(session.create_time),
            last_use_time=timestamp(session.last_use_time),
            expire_time=timestamp(session.expire_time),
            current=mine,
        )


def _is_admin(principal: Principal) -> bool:
    return ADMIN in principal.roles
