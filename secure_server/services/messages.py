"""Conversion between the values of ``secure_server.users`` and protobuf messages."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from secure_api.users.v1 import user_service_pb2 as pb
from secure_server.services.failures import InvalidRequestError
from secure_server.users import Account, AccountState

_TO_WIRE = {
    AccountState.ACTIVE: pb.User.STATE_ACTIVE,
    AccountState.DISABLED: pb.User.STATE_DISABLED,
}
_FROM_WIRE = {number: state for state, number in _TO_WIRE.items()}


def timestamp(seconds: float) -> Timestamp:
    """Return seconds since the epoch as a ``Timestamp``."""
    whole = Timestamp()
    whole.FromNanoseconds(round(seconds * 1_000_000) * 1000)
    return whole


def user(account: Account) -> pb.User:
    """Return an account as a message; the same for every caller who may read it."""
    return pb.User(
        name=account.resource_name,
        uid=account.uid,
        email=account.email,
        display_name=account.display_name,
        roles=account.roles,
        state=_TO_WIRE[account.state],
        create_time=timestamp(account.create_time),
        update_time=timestamp(account.update_time),
        etag=account.etag,
    )


def state(number: pb.User.State) -> AccountState:
    """Return the state. Raises ``InvalidRequestError`` where it is unset or unknown."""
    try:
        return _FROM_WIRE[number]
    except KeyError:
        raise InvalidRequestError(
            "state", "`state` must be STATE_ACTIVE or STATE_DISABLED."
        ) from None
