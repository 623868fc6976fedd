"""Watchers of users, each with its own session, and a source of numbered changes."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
from client_seen import until

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_api.users.v1 import user_service_pb2 as pb
from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub
from secure_client import ClientError, SessionTokenSource, aio, watch_users
from secure_client.profile import Profile
from secure_client.session import session_of

WATCHING = pb.WatchUsersResponse.CHANGE_WATCHING


def log_in(connection, password, new_password=""):
    """Open a session of the administrator, in the profile named as the certificate is."""
    profile = Profile.named(connection.certificate.stem)
    profile.save(connection.settings())
    request = tokens_pb.LoginRequest(
        user_name="admin", password=password, new_password=new_password
    )
    with connection.open() as channel:
        tokens = TokenServiceStub(channel).Login(request)
    profile.session.save(session_of(tokens, "admin", connection.target))
    return profile.name


class Watcher:
    """``names`` are the users reported, in order; ``error`` is how it ended."""

    def __init__(self, profile=None, clock=None, *, connection=None):
        """By the session of a profile, or over a connection without one."""
        self.source = SessionTokenSource(profile, clock=clock) if profile else None
        self.connection = connection or self.source.connection
        self.names = []
        self.stands = 0
        self.resume_token = ""
        self.error = None
        self._stop = lambda: None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _take(self, message):
        self.stands += message.change == WATCHING
        if message.change != WATCHING:
            self.names.append(message.user.name)
        self.resume_token = message.resume_token

    def begins(self):
        until(lambda: self.stands or self.error)

    def ends(self):
        self.thread.join(30)
        assert not self.thread.is_alive()
        return self.error

    def close(self):
        if self.thread.is_alive():
            self._stop()
        self.thread.join()


class Threaded(Watcher):
    def _run(self):
        with self.connection.open(self.source) as channel:
            self._stop = channel.close
            try:
                for message in watch_users(channel):
                    self._take(message)
            except (grpc.RpcError, ClientError) as error:
                self.error = error


class Asyncio(Watcher):
    def _run(self):
        asyncio.run(self._watch())

    async def _watch(self):
        connection, loop = self.connection, asyncio.get_running_loop()
        try:
            async with aio.connect(
                connection.target,
                ca=connection.ca,
                certificate=connection.certificate,
                private_key=connection.private_key,
                tokens=self.source,
            ) as channel:
                self._stop = lambda: asyncio.run_coroutine_threadsafe(channel.close(), loop)
                async for message in aio.watch_users(channel):
                    self._take(message)
        except (grpc.RpcError, ClientError) as error:
            self.error = error


class Command:
    """``secure-client users watch``."""

    def __init__(self, profile, folder, *arguments):
        self._folder = folder
        self._name = f"{profile}-{uuid.uuid4().hex}"
        with self._file("out").open("w") as out, self._file("err").open("w") as err:
            self.process = subprocess.Popen(
                [
                    # A background shell job ignores SIGINT.
                    *("env", "--default-signal=INT"),
                    Path(sys.executable).with_name("secure-client"),
                    *("--profile", profile, "users", "watch", *arguments),
                ],
                env=os.environ,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def _file(self, kind):
        return self._folder / f"{self._name}.{kind}"

    @property
    def names(self):
        lines = self._file("out").read_text().splitlines(keepends=True)
        # The last one may be half written.
        return [line.split()[2] for line in lines if line.endswith("\n")]

    @property
    def said(self):
        return self._file("err").read_text()

    def begins(self):
        until(lambda: "Watching the users" in self.said or self.process.poll() is not None)

    def ends(self):
        return self.process.wait(30)

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)
        return self.ends()

    def close(self):
        self.process.kill()
        self.process.wait()


@contextmanager
def watching(*watchers):
    """Start the watchers; they are stopped at the end in any case."""
    with ExitStack() as stack:
        for watcher in watchers:
            stack.callback(watcher.close)
        for watcher in watchers:
            watcher.begins()
        yield


class Writer:
    """Creates users one by one. ``names`` are those that the server has acknowledged."""

    def __init__(self, profile, prefix="n"):
        self.source = SessionTokenSource(profile)
        self._prefix = prefix
        self.names = []

    def write_some(self, count):
        count += len(self.names)
        self.write(lambda: len(self.names) == count)

    def write(self, enough):
        """Go on until ``enough()``."""
        with self.source.connection.open(self.source) as channel:
            stub = UserServiceStub(channel)
            while not enough():
                name = f"{self._prefix}{len(self.names)}"
                request = pb.CreateUserRequest(user_id=name, request_id=str(uuid.uuid4()))
                until(lambda request=request: self._has_written(stub, request))
                time.sleep(0.02)

    def _has_written(self, stub, request):
        try:
            self.names.append(stub.CreateUser(request).name)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            # The server stopped and may have done it: the same request may be sent again.
            return False
        return True
