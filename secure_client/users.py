"""Changes of users as they happen, across tokens, certificates, servers and restarts."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import grpc

from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub
from secure_client._resuming import NOT_OURS, Resuming, is_refusal
from secure_client._rotation import PATIENCE
from secure_client.channel import RotatingChannel
from secure_client.errors import ConfigurationError, TokenError

if TYPE_CHECKING:
    from secure_api.users.v1.user_service_pb2 import WatchUsersResponse
    from secure_client._rotation import CountedChannel


def watch_users(
    channel: grpc.Channel, *, resume_token: str = ""
) -> Generator[WatchUsersResponse, None, None]:
    """Every change of a user, in order and once: ``WatchUsers`` for as long as it is allowed.

    ``channel`` is what ``connect`` has returned. The first message says that the watch stands
    (``CHANGE_WATCHING``). With ``resume_token``, that of the last message that was handled,
    nothing is missed since; without, changes from now on are told.

    When the stream ends with its token or its server, another one goes on where it was, with a
    fresh token: at once, and then after a second, 2, 4, at most 30. The logger
    ``secure_client.users`` says when that takes longer. ``close()`` hangs up; closing the channel
    ends the watch from any thread.

    Raises ``ConfigurationError`` for another channel; ``NotLoggedInError``, ``SessionEndedError``
    or ``TokenRefusedError`` where there will be no token any more; ``grpc.RpcError`` for the rest:
    OUT_OF_RANGE means that the changes since ``resume_token`` are not kept, so list the users and
    watch from now. What fails before the first message is raised whatever it is.
    """
    if not isinstance(channel, RotatingChannel):
        raise ConfigurationError(NOT_OURS.format(connect="secure_client.connect"))
    return _watch(channel, Resuming(resume_token))


def _watch(
    channel: RotatingChannel, resuming: Resuming
) -> Generator[WatchUsersResponse, None, None]:
    try:
        yield from _streams(channel, resuming)
    except (grpc.RpcError, TokenError, ValueError):
        if not (channel.is_closed and resuming.begun):
            raise


def _streams(
    channel: RotatingChannel, resuming: Resuming
) -> Generator[WatchUsersResponse, None, None]:
    stub = UserServiceStub(channel)
    while True:
        error = line = token = call = None
        try:
            line = _prepared(channel)
            token = line.token()
            call = stub.WatchUsers(resuming.request())
            for message in call:
                if resuming.hear(message):
                    yield message
        except (grpc.RpcError, TokenError) as failure:
            error = failure
        finally:
            if call is not None:
                call.cancel()
        if line is not None and token is not None and is_refusal(error):
            line.refuse(token)
        pause = None if channel.is_closed else resuming.pause(error)
        if error is not None and pause is None:
            raise error
        channel.wait(pause or 0.0)


def _prepared(channel: RotatingChannel) -> CountedChannel:
    """The line for the next call, with the files as they are now and a token that is good."""
    channel.look_and_wait(PATIENCE)
    line = channel.line()
    try:
        line.prepare()
    finally:
        line.leave()
    return line
