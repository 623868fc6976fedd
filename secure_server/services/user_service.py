"""The servicer of ``secure_api.users.v1.UserService``."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from google.protobuf.empty_pb2 import Empty

from secure_api.users.v1 import user_service_pb2 as pb
from secure_api.users.v1.user_service_pb2_grpc import UserServiceServicer
from secure_server.auth.identity import Identity
from secure_server.auth.principal import Principal
from secure_server.guard import current_principal
from secure_server.services import messages
from secure_server.services.cursors import Cursors
from secure_server.services.events import log_event
from secure_server.services.failures import (
    InvalidRequestError,
    NotAllowedError,
    abort,
    abort_stopping,
    answering,
    answers,
    status_of,
    waiting,
)
from secure_server.store.errors import StoreError
from secure_server.users import ADMIN, Account, Accounts, ChangeKind, Changes, Logins, UserError
from secure_server.users.rules import parse_resource_name

_DEFAULT_PAGE, _LARGEST_PAGE = 50, 1000
_MOST_FAILURES = 1000
_BATCH = 256
_LOOK_EVERY = 1.0  # seconds until a watcher notices that its caller has hung up

_OWN_FIELDS = frozenset({"email", "display_name"})
_FIELDS = _OWN_FIELDS | {"roles", "state"}

_KINDS = {
    ChangeKind.CREATED: pb.WatchUsersResponse.CHANGE_CREATED,
    ChangeKind.UPDATED: pb.WatchUsersResponse.CHANGE_UPDATED,
    ChangeKind.DELETED: pb.WatchUsersResponse.CHANGE_DELETED,
}


class UserService(UserServiceServicer):
    """Accounts. The policy has admitted the caller; here only the *own record* rule is checked."""

    def __init__(
        self,
        accounts: Accounts,
        logins: Logins,
        changes: Changes,
        cursors: Cursors,
        *,
        issuer: str,
        stopping: threading.Event,
    ) -> None:
        """``issuer`` is this server's own: its subject ``users/NAME`` is the user NAME, and that of
        another issuer is not. ``stopping`` is set when the server stops, and ends ``WatchUsers``.
        """
        self._accounts = accounts
        self._logins = logins
        self._issuer = issuer
        self._changes = changes
        self._cursors = cursors
        self._stopping = stopping

    @answers
    def CreateUser(self, request: pb.CreateUserRequest, context: Any) -> pb.User:
        return messages.user(self._create(request))

    @answers
    def GetUser(self, request: pb.GetUserRequest, context: Any) -> pb.User:
        name = parse_resource_name(request.name)
        self._check_own_record(name)
        return messages.user(self._accounts.get(name))

    @answers
    def ListUsers(
        self,
        request: pb.ListUsersRequest,
        context: Any,
    ) -> pb.ListUsersResponse:
        if request.page_size < 0:
            raise InvalidRequestError("page_size", "`page_size` must not be negative.")
        size = min(request.page_size or _DEFAULT_PAGE, _LARGEST_PAGE)
        caller = current_principal().identity
        after = ""
        if request.page_token:
            after = self._cursors.open("page_token", caller, request.page_token)
        page = self._accounts.list(after, size + 1)
        token = ""
        if len(page) > size:
            page = page[:size]
            token = self._cursors.seal("page_token", caller, page[-1].name)
        return pb.ListUsersResponse(users=map(messages.user, page), next_page_token=token)

    @answers
    def UpdateUser(self, request: pb.UpdateUserRequest, context: Any) -> pb.User:
        name = parse_resource_name(request.user.name, field="user.name")
        self._check_own_record(name)
        fields = _masked(request)
        if fields - _OWN_FIELDS and not _is_admin(current_principal()):
            raise NotAllowedError
        values: dict[str, object] = {
            "email": request.user.email,
            "display_name": request.user.display_name,
            "roles": tuple(request.user.roles),
        }
        if "state" in fields:
            values["state"] = messages.state(request.user.state)
        changes = {field: values[field] for field in fields}
        account = self._accounts.update(name, changes, request.user.etag)
        log_event("user changed", user=name, fields=sorted(fields))
        return messages.user(account)

    @answers
    def DeleteUser(self, request: pb.DeleteUserRequest, context: Any) -> Empty:
        name = parse_resource_name(request.name)
        self._check_own_record(name)
        self._accounts.delete(name, request.etag)
        log_event("user deleted", user=name)
        return Empty()

    @answers
    def ChangePassword(
        self,
        request: pb.ChangePasswordRequest,
        context: Any,
    ) -> pb.ChangePasswordResponse:
        name = parse_resource_name(request.name)
        principal = current_principal()
        if not self._is(principal, name):
            raise NotAllowedError  # administrators too: only its owner changes a password
        ended = self._logins.change_password(
            name,
            request.current_password,
            request.new_password,
            keep_session=principal.session_id,
        )
        log_event("password changed", user=name, ended=ended)
        return pb.ChangePasswordResponse(ended_sessions=ended)

    def ImportUsers(
        self, request_iterator: Iterator[pb.ImportUsersRequest], context: Any
    ) -> pb.ImportUsersResponse:
        report = pb.ImportUsersResponse()
        for index, request in enumerate(request_iterator):
            try:
                with waiting(context):
                    self._create(request.row)
            except (StoreError, NotAllowedError) as error:
                abort(context, error)
            except UserError as error:
                report.failed_count += 1
                if len(report.failures) < _MOST_FAILURES:
                    report.failures.add(
                        index=index,
                        user_id=request.row.user_id[:64],
                        code=status_of(error).value[0],
                        message=str(error),
                    )
            else:
                report.imported_count += 1
        return report

    def WatchUsers(
        self, request: pb.WatchUsersRequest, context: Any
    ) -> Iterator[pb.WatchUsersResponse]:
        caller = current_principal().identity
        with answering(context):
            number = self._changes.position()
            if request.resume_token:
                number = int(self._cursors.open("resume_token", caller, request.resume_token))
                self._changes.after(number, 1)  # raises where the changes since then are deleted
        yield self._response(caller, pb.WatchUsersResponse.CHANGE_WATCHING, None, number)
        while context.is_active() and not self._stopping.is_set():
            with answering(context):
                batch = self._changes.follow(number, _BATCH, _LOOK_EVERY)
            for change in batch:
                number = change.number
                yield self._response(caller, _KINDS[change.kind], change.account, number)
        if self._stopping.is_set():
            abort_stopping(context)

    def _response(
        self,
        caller: Identity,
        kind: pb.WatchUsersResponse.Change,
        account: Account | None,
        number: int,
    ) -> pb.WatchUsersResponse:
        return pb.WatchUsersResponse(
            change=kind,
            user=None if account is None else messages.user(account),
            resume_token=self._cursors.seal("resume_token", caller, str(number)),
        )

    def _is(self, principal: Principal, name: str) -> bool:
        return principal.identity == Identity(self._issuer, f"users/{name}")

    def _check_own_record(self, name: str) -> None:
        """Raise ``NotAllowedError`` for the record of another user, existing or not."""
        principal = current_principal()
        if not _is_admin(principal) and not self._is(principal, name):
            raise NotAllowedError

    def _create(self, request: pb.CreateUserRequest) -> Account:
        for field in ("uid", "create_time", "update_time"):
            if getattr(request.user, field) != getattr(pb.User(), field):
                raise InvalidRequestError(
                    f"user.{field}", f"`user.{field}` is for the server to set."
                )
        principal = current_principal()
        # A policy may let other callers create users, but none with more rights than their own.
        if ADMIN in request.user.roles and not _is_admin(principal):
            raise NotAllowedError
        account = self._accounts.create(
            request.user_id,
            email=request.user.email,
            display_name=request.user.display_name,
            roles=request.user.roles,
            state=messages.state(request.user.state or pb.User.STATE_ACTIVE),
            password=request.password or None,
            request_id=request.request_id,
            caller=principal.identity,
        )
        log_event("user created", user=account.name, roles=account.roles)
        return account


def _is_admin(principal: Principal) -> bool:
    return ADMIN in principal.roles


def _masked(request: pb.UpdateUserRequest) -> frozenset[str]:
    """Return the fields to change (AIP-134, AIP-161)."""
    if not request.HasField("update_mask"):
        return frozenset(field.name for field, _ in request.user.ListFields()) & _FIELDS
    paths = frozenset(request.update_mask.paths)
    if paths == {"*"}:
        return _FIELDS
    if unknown := paths - _FIELDS:
        raise InvalidRequestError(
            "update_mask",
            f"`update_mask` may name {', '.join(sorted(_FIELDS))}, or be `*`; "
            f"not {ascii(min(unknown))[:80]}.",
        )
    return paths
