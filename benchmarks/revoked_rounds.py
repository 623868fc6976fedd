"""Two processes on one store: kill -9 at a step of a revocation, then calls with all tokens."""

from __future__ import annotations

import random
import secrets
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from threading import Timer

from benchmarks.dying import Step
from benchmarks.revoked_figures import Figures
from benchmarks.revoked_people import (
    CLIENTS,
    SETTINGS,
    USERS,
    Administrator,
    Credential,
    Kind,
    Revocation,
    Stream,
    Way,
    as_workload,
    is_refreshed,
    is_served,
    log_in,
)
from benchmarks.revoked_plan import before, plan
from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub
from tests.support.running import DEADLINE, Installation, ServerProcess, bearer

_PROMISE = 1.0
"""Seconds within which every process refuses what is revoked, and its streams end."""
_POLL = 0.005
_MOST_WRITES = 10  # as many as the smallest revocation writes
_SPREAD = {Way.CALL: 0.04, Way.COMMAND: 1.5}
"""The most seconds that a revocation takes: a kill at any moment comes within them."""
_SPARE = 60.0  # seconds that a token must still live, to be used


class Dying(Installation):
    """An installation whose next server may kill itself."""

    plan: tuple[Step, int] | None = None

    def __init__(self, root: Path, *, settings: str) -> None:
        super().__init__(
            root,
            settings=settings,
            environment={"PYTHONPATH": str(Path(__file__).parents[1])},
        )

    def _command(self, name: str) -> list[str]:
        script, *words = super()._command(name)
        if name != "serve" or self.plan is None:
            return [script, *words]
        step, write = self.plan
        # Not of the first revocation, of the second.
        return [sys.executable, "-m", "benchmarks.dying", step.name, "1", str(write), *words]


class Rounds:
    """A writer that dies, another process on the same store, and the credentials of all users."""

    def __init__(self, root: Path, *, seed: int) -> None:
        """``seed`` decides which process to kill, and when, where the step leaves that open."""
        self._installation = Dying(root, settings=SETTINGS)
        self._admin = Administrator(self._installation.client("admin"), root / "home")
        self._files = {name: self._installation.client(name) for name in CLIENTS}
        self._random = random.Random(seed)
        self._password = secrets.token_urlsafe(18)
        self._credentials: list[Credential] = []
        self.figures = Figures()

    def run(self, rounds: int) -> Iterator[Figures]:
        """Yield the figures after each round, and after the final check."""
        secret = self._installation.bootstrap()
        self._writer, self._other = self._start(plan(0).step), self._start()
        try:
            self._make_users(secret)
            for number in range(rounds):
                self._round(number, plan(number + 1).step)
                self.figures.rounds += 1
                yield self.figures
            for server in (self._writer, self._other):
                server.kill()
            self._writer, self._other = self._start(), self._start()
            self._check(self._credentials)
            self._check_sessions(self._credentials)
            yield self.figures
        finally:
            self._writer.kill()
            self._other.kill()

    def _start(self, step: Step | None = None) -> ServerProcess:
        write = self._random.randrange(_MOST_WRITES)
        self._installation.plan = (step, write) if step is not None and step.is_own else None
        begin = time.monotonic()
        server = self._installation.start()
        self.figures.restarts_ms.append((time.monotonic() - begin) * 1000)
        return server

    def _make_users(self, secret: str) -> None:
        address = self._writer.address
        self._admin.log_in(address, secret, self._password)
        initial = secrets.token_urlsafe(18)
        with self._admin.files.channel(address) as channel:
            for name in USERS:
                request = users_pb.CreateUserRequest(
                    user_id=name, user=users_pb.User(), password=initial
                )
                UserServiceStub(channel).CreateUser(
                    request, metadata=bearer(self._admin.tokens.access_token), timeout=DEADLINE
                )
                login = pb.LoginRequest(
                    user_name=name, password=initial, new_password=self._password
                )
                TokenServiceStub(channel).Login(login, timeout=DEADLINE)

    def _round(self, number: int, next_step: Step) -> None:
        """Revoke with an answer, revoke again and kill; restart, and use all credentials."""
        step, kind, way, both = plan(number)
        self._admin.log_in(self._writer.address, self._password)
        mine = self._log_all_in(f"round {number}, {step.name}")
        with ExitStack() as stack:
            streams = self._open_streams(mine, stack)
            self._revoke_and_be_told(_revocation(before(kind), mine[_TOLD]))
            self._await_refusals(mine)
            doubt = _revocation(kind, mine[_IN_DOUBT])
            told, over = self._revoke_and_kill(doubt, step, way)
            if both:
                self._other.kill()
            if told:
                self._note(doubt, told=True, since=over)
            survived = _is_alive(self._other)
            if survived:
                self._await_refusals(mine)
            self._revive(step, next_step)
            recent = self._credentials[-2 * len(mine) :]
            in_force = not told and self._is_in_force(doubt, recent)
            if in_force:
                self._note(doubt, told=False, since=over)
                if survived:
                    # Only its streams show when it noticed: no call was made before the restart.
                    self._await_refusals(mine, timed=False)
            self._check(recent)
            self._check_sessions(mine)
            if survived:
                self._check_streams(streams)
        self._count(step, told=told, in_force=in_force)
        if step is Step.OTHER:
            self._writer.kill()
            self._writer = self._start(next_step)

    def _count(self, step: Step, *, told: bool, in_force: bool) -> None:
        self.figures.told += 1 + told
        self.figures.in_doubt += not told
        self.figures.in_doubt_in_force += in_force
        outcome = "told" if told else "in force" if in_force else "undone"
        self.figures.steps[step].update(["rounds", outcome])

    def _log_all_in(self, name: str) -> list[Credential]:
        """Open two sessions of one user and client, one of each other pair, and fetch tokens of the
        clients' own; by both processes.
        """
        pairs = [(USERS[0], CLIENTS[0]), *product(USERS, CLIENTS)]
        with ExitStack() as stack:
            writer = self._stubs(self._writer, stack)
            other = self._stubs(self._other, stack)
            mine = [
                log_in(writer[client], f"{name}: {user} at {client}", user, client, self._password)
                for user, client in pairs
            ] + [as_workload(other[client], f"{name}: {client}", client) for client in CLIENTS]
        self._credentials += mine
        return mine

    def _open_streams(self, mine: Iterable[Credential], stack: ExitStack) -> list[Stream]:
        channels = {
            name: stack.enter_context(files.channel(self._other.address))
            for name, files in self._files.items()
        }
        streams = [Stream(channels[each.client], each) for each in mine]
        for stream in streams:
            stack.callback(stream.close)
        return streams

    def _revoke_and_be_told(self, revocation: Revocation) -> None:
        if problem := self._admin.revoke(self._writer.address, revocation, Way.CALL):
            raise RuntimeError(f"A revocation failed: {problem}\n{self._writer.log}")
        self._note(revocation, told=True, since=time.monotonic())

    def _revoke_and_kill(self, revocation: Revocation, step: Step, way: Way) -> tuple[bool, float]:
        """Return whether the revocation was acknowledged, and when the process was dead."""
        timer = None
        if step in {Step.ANYTIME, Step.OTHER}:
            victim = self._other if step is Step.OTHER else self._writer
            timer = Timer(self._random.uniform(0, _SPREAD[way]), victim.process.kill)
            timer.start()
        problem = self._admin.revoke(self._writer.address, revocation, way)
        over = time.monotonic()
        if step is not Step.OTHER and not problem:
            self._writer.kill()
        if timer is not None:
            timer.join()
        if problem:
            if step in {Step.OTHER, Step.ANSWERED}:
                raise RuntimeError(f"A revocation failed: {problem}\n{self._writer.log}")
            self._writer.process.wait(DEADLINE)
        if step is Step.OTHER:
            self._other.process.wait(DEADLINE)
        return not problem, over

    def _revive(self, step: Step, next_step: Step) -> None:
        """Start dead processes. A writer that lives is checked before it is stopped."""
        if step is not Step.OTHER:
            self._writer = self._start(next_step)
        if not _is_alive(self._other):
            self._other = self._start()

    def _note(self, revocation: Revocation, *, told: bool, since: float) -> None:
        for each in self._credentials:
            if each.is_meant_by(revocation):
                each.end(revocation, told=told, since=since)

    def _await_refusals(self, mine: Iterable[Credential], *, timed: bool = True) -> None:
        """Call the other process until it refuses what is revoked."""
        with ExitStack() as stack:
            stubs = self._stubs(self._other, stack)
            for each in mine:
                if each.is_good or each.awaited:
                    continue
                each.awaited = True
                while is_served(stubs[each.client], each):
                    if time.monotonic() - each.since > DEADLINE:
                        break  # which is late, and served
                    time.sleep(_POLL)
                if not timed:
                    continue
                seconds = time.monotonic() - each.since
                self.figures.noticed_ms.append(seconds * 1000)
                if seconds > _PROMISE:
                    self.figures.late.add(each.name)

    def _is_in_force(self, doubt: Revocation, recent: Iterable[Credential]) -> bool:
        """Call the new writer; it must serve or refuse all tokens of the revocation alike."""
        meant = [each for each in recent if each.is_good and each.is_meant_by(doubt)]
        with ExitStack() as stack:
            stubs = self._stubs(self._writer, stack)
            served = {is_served(stubs[each.client], each) for each in meant}
        if len(served) > 1:
            self.figures.disagreed.update(each.name for each in meant)
        return False in served

    def _check(self, credentials: Iterable[Credential]) -> None:
        """Call both processes with each token, once more."""
        for server in (self._writer, self._other):
            with ExitStack() as stack:
                stubs = self._stubs(server, stack)
                for each in credentials:
                    if each.expires_at > time.time() + _SPARE:
                        self.figures.checks += 1
                        self._compare(each, served=is_served(stubs[each.client], each))

    def _compare(self, credential: Credential, *, served: bool) -> None:
        if served and credential.revoked:
            self.figures.revoked_but_served.add(credential.name)
        elif served and credential.found_revoked:
            self.figures.disagreed.add(credential.name)
        elif not served and credential.is_good:
            self.figures.served_wrongly_refused.add(credential.name)

    def _check_sessions(self, credentials: Iterable[Credential]) -> None:
        """Refresh each: a revoked session gives no more tokens, any other one does."""
        with ExitStack() as stack:
            both = [self._stubs(server, stack) for server in (self._writer, self._other)]
            for each in credentials:
                if not each.refresh_token:
                    continue
                self.figures.checks += 1
                renewed = is_refreshed(self._random.choice(both)[each.client], each)
                if renewed and each.session_ended:
                    self.figures.revoked_but_served.add(f"{each.name}, renewed")
                elif not renewed and not each.session_ended:
                    self.figures.served_wrongly_refused.add(f"{each.name}, renewed")

    def _check_streams(self, streams: Iterable[Stream]) -> None:
        for stream in streams:
            each = stream.credential
            self.figures.checks += 1
            if each.is_good and not stream.is_open:
                self.figures.served_wrongly_refused.add(f"{each.name}, stream")
            elif not each.is_good and stream.seconds_to_end(each.since) > _PROMISE:
                self.figures.late.add(f"{each.name}, stream")

    def _stubs(self, server: ServerProcess, stack: ExitStack) -> Mapping[str, TokenServiceStub]:
        return {
            name: TokenServiceStub(stack.enter_context(files.channel(server.address)))
            for name, files in self._files.items()
        }


_TOLD, _IN_DOUBT = 2, 3
"""Return those of one user at one client, and of the other user at the other client."""


def _revocation(kind: Kind, credential: Credential) -> Revocation:
    return Revocation(kind, credential.mark(kind))


def _is_alive(server: ServerProcess) -> bool:
    return server.process.poll() is None
