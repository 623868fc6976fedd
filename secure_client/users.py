"""``watch_users``: changes of users, across tokens, certificates, servers and restarts."""

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
    """Yield every change of a user, in order and once, over ``WatchUsers``.

    ``channel`` is what ``connect`` has returned. The first message is ``CHANGE_WATCHING``.
    With the ``resume_token`` of the last message handled, the watch continues after it and misses
    nothing; without, it begins now.

    When the stream ends because its token expired or its server stopped, another one continues
    with a fresh token: at once, and then after 1, 2, 4, at most 30 seconds. The logger
    ``secure_client.users`` reports interruptions. ``close()`` ends the watch; closing the channel
    does so from any thread.

    Raises ``ConfigurationError`` for another channel; ``NotLoggedInError``, ``SessionEndedError``
    or ``TokenRefusedError`` where there will be no more tokens; ``grpc.RpcError`` for the rest:
    OUT_OF_RANGE means that the server no longer keeps the changes since ``resume_token``: list
    the users and watch from now. Any failure before the first message is raised.
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
        error = counted = token = call = None
        try:
            counted = _prepared(channel)
            token = counted.token()
            call = stub.WatchUsers(resuming.request())
            for message in call:
                if resuming.hear(message):
                    yield message
        except (grpc.RpcError, TokenError) as failure:
            error = failure
        finally:
            if call is not None:
                call.cancel()
        if counted is not None and token is not None and is_refusal(error):
            counted.refuse(token)
        pause = None if channel.is_closed else resuming.pause(error)
        if error is not None and pause is None:
            raise error
        channel.wait(pause or 0.0)


def _prepared(channel: RotatingChannel) -> CountedChannel:
    """The counted channel for the next call: current files, and a valid token."""
    channel.look_and_wait(PATIENCE)
    counted = channel.counted_channel()
    try:
        counted.prepare()
    finally:
        counted.leave()
    return counted
