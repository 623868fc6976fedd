"""The watch on users for asyncio: see ``users``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

import grpc

from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub
from secure_client._resuming import is_refusal
from secure_client.errors import TokenError

if TYPE_CHECKING:
    from secure_api.users.v1.user_service_pb2 import WatchUsersResponse
    from secure_client._resuming import Resuming
    from secure_client._rotation import CountedChannel
    from secure_client.aio import RotatingChannel


async def watch(
    channel: RotatingChannel, resuming: Resuming
) -> AsyncGenerator[WatchUsersResponse, None]:
    try:
        async with aclosing(_streams(channel, resuming)) as messages:
            async for message in messages:
                yield message
    except (grpc.RpcError, TokenError, grpc.aio.UsageError, asyncio.CancelledError):
        # A closed channel cancels its calls, which looks like a cancelled task.
        if not (channel.is_closed and resuming.begun) or _is_cancelled():
            raise


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _streams(
    channel: RotatingChannel, resuming: Resuming
) -> AsyncGenerator[WatchUsersResponse, None]:
    stub = UserServiceStub(channel)
    while True:
        error = counted = token = call = None
        try:
            counted = await _prepared(channel)
            token = counted.token()
            call = stub.WatchUsers(resuming.request())
            async for message in call:
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
        await channel.wait(pause or 0.0)


async def _prepared(channel: RotatingChannel) -> CountedChannel:
    """The counted channel for the next call: current files, and a valid token."""
    await channel.look_and_wait()
    counted = channel.counted_channel()
    try:
        await asyncio.to_thread(counted.prepare)
    finally:
        counted.leave()
    return counted
