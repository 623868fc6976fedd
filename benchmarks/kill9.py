"""Kills one server repeatedly and checks its store after each restart."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import grpc

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_api.users.v1 import user_service_pb2 as pb
from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub
from tests.support.running import DEADLINE, Installation, ServerProcess, bearer

_FEWEST_SECONDS, _MOST_SECONDS = 0.02, 0.8  # between the first write and the kill
_KILLED_WHILE_STARTING = 0.2  # of the rounds
_PAGE = 1000


@dataclass
class Figures:
    """The counts. The sets hold users' names and must stay empty."""

    rounds: int = 0
    acknowledged: int = 0
    in_doubt: int = 0
    """Sent and not answered before the kill; each of them may exist or not."""
    in_doubt_written: int = 0
    lost: set[str] = field(default_factory=set)
    """Acknowledged, and not there, or not in the feed."""
    changed: set[str] = field(default_factory=set)
    """Acknowledged, and another record is there."""
    duplicated: set[str] = field(default_factory=set)
    """In the feed more than once."""
    disordered: set[str] = field(default_factory=set)
    """In the feed before a user whose creation was acknowledged when this one was asked for."""
    unannounced: set[str] = field(default_factory=set)
    """There, and not in the feed, or the reverse."""
    restarts_ms: list[float] = field(default_factory=list)

    @property
    def wrong(self) -> set[str]:
        """All violations: empty where the store and the feed have survived."""
        return self.lost | self.changed | self.duplicated | self.disordered | self.unannounced

    def summary(self) -> dict[str, int]:
        """Return counts; restarts as two numbers, in milliseconds."""
        counts = {
            name: len(value) if isinstance(value, set) else value
            for name, value in vars(self).items()
            if name != "restarts_ms"
        }
        return counts | {
            "restart_ms_median": round(median(self.restarts_ms)),
            "restart_ms_max": round(max(self.restarts_ms)),
        }


@dataclass
class _Written:
    """One writer's round: the users that were acknowledged, in order."""

    acknowledged: list[pb.User] = field(default_factory=list)
    in_doubt: list[str] = field(default_factory=list)


class Kill9:
    """Writes, kills, restarts and checks, on one installation."""

    def __init__(self, installation: Installation, *, seed: int, writers: int) -> None:
        """``seed`` decides when to kill; ``writers`` threads write at once."""
        self._installation = installation
        self._files = installation.client("admin")
        self._random = random.Random(seed)
        self._writers = writers
        self._password = secrets.token_urlsafe(18)
        self._acknowledged: dict[str, pb.User] = {}
        self._orders: list[list[str]] = []
        self._in_doubt: set[str] = set()
        self.figures = Figures()

    def run(self, rounds: int) -> Iterator[Figures]:
        """Run rounds, and yield the figures after each and after the final check of everything."""
        secret = self._installation.bootstrap()
        server = self._installation.start()
        try:
            self._log_in(server, secret, new_password=self._password)
            with self._files.channel(server.address) as channel:
                watching = next(self._watch(UserServiceStub(channel), ""))
                self._start_of_feed = resume_token = watching.resume_token
            for number in range(rounds):
                written = self._write_until_killed(server, number)
                server = self._restart()
                self._log_in(server, self._password)  # a token may not last for all rounds
                resume_token = self._check(server, written, resume_token, number)
                self.figures.rounds += 1
                yield self.figures
            self._check_everything(server)
            yield self.figures
        finally:
            server.kill()

    def _log_in(self, server: ServerProcess, password: str, new_password: str = "") -> None:
        request = tokens_pb.LoginRequest(
            user_name="admin", password=password, new_password=new_password
        )
        with self._files.channel(server.address) as channel:
            tokens = TokenServiceStub(channel).Login(request, timeout=DEADLINE)
        self._metadata = bearer(tokens.access_token)

    def _write_until_killed(self, server: ServerProcess, number: int) -> list[_Written]:
        written = [_Written() for _ in range(self._writers)]
        first = threading.Event()
        with (
            self._files.channel(server.address) as channel,
            ThreadPoolExecutor(self._writers) as executor,
        ):
            stub = UserServiceStub(channel)
            running = [
                executor.submit(self._write, stub, f"r{number}-w{place}", one, first)
                for place, one in enumerate(written)
            ]
            try:
                first.wait(DEADLINE)
                time.sleep(self._random.uniform(_FEWEST_SECONDS, _MOST_SECONDS))
            finally:
                server.kill()  # which ends the writers
            for one in running:
                one.result()
        return written

    def _write(
        self, stub: UserServiceStub, prefix: str, written: _Written, first: threading.Event
    ) -> None:
        """Create users one after the other, until the server is gone."""
        number = 0
        while True:
            name = f"{prefix}-{number}"
            request = pb.CreateUserRequest(
                user_id=name, user=pb.User(display_name=f"User {name}", roles=["reader"])
            )
            try:
                user = stub.CreateUser(request, metadata=self._metadata, timeout=DEADLINE)
            except grpc.RpcError as error:
                first.set()
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                written.in_doubt.append(name)
                return
            first.set()
            written.acknowledged.append(user)
            number += 1

    def _restart(self) -> ServerProcess:
        """Start on the same store; in some rounds the new server is killed during its start too."""
        if self._random.random() < _KILLED_WHILE_STARTING:
            usual = median(self.figures.restarts_ms or [1000.0]) / 1000
            unlucky = self._installation.spawn()
            time.sleep(self._random.uniform(0, usual))
            unlucky.kill()
        begin = time.monotonic()
        server = self._installation.start()
        self.figures.restarts_ms.append((time.monotonic() - begin) * 1000)
        return server

    def _check(
        self, server: ServerProcess, written: list[_Written], resume_token: str, number: int
    ) -> str:
        """Check one round, and return where its part of the feed ends."""
        for one in written:
            self._acknowledged |= {user.name: user for user in one.acknowledged}
            self._orders.append([user.name for user in one.acknowledged])
            self._in_doubt.update(f"users/{name}" for name in one.in_doubt)
            self.figures.acknowledged += len(one.acknowledged)
            self.figures.in_doubt += len(one.in_doubt)
        with self._files.channel(server.address) as channel:
            stub = UserServiceStub(channel)
            for one in written:
                for user in one.acknowledged:
                    self._compare(user, self._get(stub, user.name))
            created, resume_token = self._feed_to_fence(stub, resume_token, f"r{number}-fence")
        self._compare_feed(created, [[u.name for u in one.acknowledged] for one in written])
        return resume_token

    def _check_everything(self, server: ServerProcess) -> None:
        """Read all users and the whole feed once more: a later kill may have undone a write."""
        with self._files.channel(server.address) as channel:
            stub = UserServiceStub(channel)
            created, _ = self._feed_to_fence(stub, self._start_of_feed, "last-fence")
            there = {user.name: user for user in self._list(stub)}
        for name, user in self._acknowledged.items():
            self._compare(user, there.get(name))
        self._compare_feed(created, self._orders)
        del there["users/admin"]  # made before the feed was opened
        self.figures.unannounced.update(there.keys() ^ set(created))
        self.figures.in_doubt_written = len(self._in_doubt & there.keys())

    def _compare(self, acknowledged: pb.User, found: pb.User | None) -> None:
        if found is None:
            self.figures.lost.add(acknowledged.name)
        elif found != acknowledged:
            self.figures.changed.add(acknowledged.name)

    def _compare_feed(self, created: list[str], orders: list[list[str]]) -> None:
        """``orders`` are the users of each writer, as they were acknowledged."""
        self.figures.duplicated.update(
            name for name, times in Counter(created).items() if times > 1
        )
        place = {name: position for position, name in enumerate(created)}
        for order in orders:
            self.figures.lost.update(name for name in order if name not in place)
            there = [name for name in order if name in place]
            self.figures.disordered.update(
                later for earlier, later in pairwise(there) if place[later] < place[earlier]
            )

    def _get(self, stub: UserServiceStub, name: str) -> pb.User | None:
        try:
            user: pb.User = stub.GetUser(
                pb.GetUserRequest(name=name), metadata=self._metadata, timeout=DEADLINE
            )
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise
        return user

    def _list(self, stub: UserServiceStub) -> Iterator[pb.User]:
        token = ""
        while True:
            page = stub.ListUsers(
                pb.ListUsersRequest(page_size=_PAGE, page_token=token),
                metadata=self._metadata,
                timeout=DEADLINE,
            )
            yield from page.users
            token = page.next_page_token
            if not token:
                return

    def _feed_to_fence(
        self, stub: UserServiceStub, resume_token: str, fence: str
    ) -> tuple[list[str], str]:
        """Return the names created since, up to a user created now, and its place in the feed."""
        stub.CreateUser(
            pb.CreateUserRequest(user_id=fence, user=pb.User()),
            metadata=self._metadata,
            timeout=DEADLINE,
        )
        created = []
        for change in self._watch(stub, resume_token):
            if change.change == pb.WatchUsersResponse.CHANGE_CREATED:
                created.append(change.user.name)
                if change.user.name == f"users/{fence}":
                    return created, change.resume_token
        raise RuntimeError("The feed ended before its last change.")

    def _watch(self, stub: UserServiceStub, resume_token: str) -> Iterator[pb.WatchUsersResponse]:
        stream = stub.WatchUsers(
            pb.WatchUsersRequest(resume_token=resume_token),
            metadata=self._metadata,
            timeout=DEADLINE,
        )
        try:
            yield from stream
        finally:
            stream.cancel()
