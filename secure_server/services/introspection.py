"""``Introspect``: whether a token is active, and a second answer when it stops being so."""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_server.auth.errors import AuthenticationError
from secure_server.auth.jwt import JWTAuthenticator
from secure_server.auth.local_issuer import LEEWAY
from secure_server.auth.principal import Principal
from secure_server.services.failures import InvalidRequestError, answering, answers
from secure_server.services.messages import timestamp
from secure_server.store.errors import StoreUnavailableError
from secure_server.tokens.revocations import Revocations

MOST_WATCHED = 10_000
"""Most tokens that one stream watches; each takes a little over a kilobyte."""

_MOST_CORRELATION_BYTES = 64
_READ_AHEAD = 16
"""Requests that are read before they are answered; with so many waiting no more is read, and
HTTP/2 flow control stops the sender."""

_LOOK_EVERY = 1.0
"""Most seconds between two looks at the expiry of watched tokens: the clock may be set."""


class Introspection:
    """Answers ``Introspect`` streams. Each has two threads: one answers, one reads requests."""

    def __init__(
        self,
        verifier: JWTAuthenticator,
        revocations: Revocations,
        *,
        clock: Callable[[], float],
    ) -> None:
        """``clock`` gives seconds since the epoch."""
        self._verifier = verifier
        self._revocations = revocations
        self._clock = clock

    def answer(
        self, requests: Iterator[pb.IntrospectRequest], context: Any
    ) -> Iterator[pb.IntrospectResponse]:
        """Yield an answer to each request, and second answers as watched tokens end."""
        inbox = _Inbox()
        watched = _Watched(self._revocations, self._clock)
        unsubscribe = self._revocations.subscribe(inbox.wake)
        # The iterator of requests blocks, and this thread must be free to send second answers.
        reader = threading.Thread(
            target=inbox.fill, args=(requests,), name="introspect-reader", daemon=True
        )
        reader.start()
        try:
            while not inbox.is_over:
                request = inbox.take(watched.patience)
                with answering(context):
                    self._check_current()
                for correlation_id in watched.pop_ended():
                    yield pb.IntrospectResponse(correlation_id=correlation_id)
                if request is not None:
                    yield self._first_answer(request, context, watched)
        finally:
            unsubscribe()
            inbox.close()

    def _check_current(self) -> None:
        """Raise ``StoreError`` where the feed of revocations has been unreadable for too long."""
        if not self._revocations.is_current:
            raise StoreUnavailableError("STALE", "The feed of revocations cannot be read.")

    def _first_answer(
        self, request: pb.IntrospectRequest, context: Any, watched: _Watched
    ) -> pb.IntrospectResponse:
        response = self._describe(request, context)
        if isinstance(response, pb.IntrospectResponse):
            return response
        token = response
        return pb.IntrospectResponse(
            correlation_id=request.correlation_id,
            active=True,
            subject=token.subject,
            issuer=token.issuer,
            client_id=token.client_id,
            scopes=sorted(token.scopes),
            roles=sorted(token.roles),
            token_id=token.token_id,
            thumbprint=token.thumbprint,
            expire_time=timestamp(token.expires_at or 0),
            watched=watched.add(request.correlation_id, token),
        )

    @answers
    def _describe(
        self, request: pb.IntrospectRequest, _context: Any
    ) -> pb.IntrospectResponse | Principal:
        if len(request.correlation_id.encode()) > _MOST_CORRELATION_BYTES:
            raise InvalidRequestError(
                "correlation_id", f"`correlation_id` has at most {_MOST_CORRELATION_BYTES} bytes."
            )
        try:
            token = self._verifier.verify(request.token)
        except AuthenticationError:
            return pb.IntrospectResponse(correlation_id=request.correlation_id)
        if self._revocations.is_revoked(token):
            return pb.IntrospectResponse(correlation_id=request.correlation_id)
        return token


class _Inbox:
    """Requests of one stream, from the thread that reads them to the thread that answers."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: deque[pb.IntrospectRequest] = deque()
        self._is_awake = False
        self._is_complete = False
        self._is_closed = False
        self._error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Whether all requests have been taken and no more will come."""
        with self._condition:
            return self._is_complete and self._error is None and not self._waiting

    def fill(self, requests: Iterator[pb.IntrospectRequest]) -> None:
        """Read all requests, at most ``_READ_AHEAD`` before ``take`` has returned them."""
        error: BaseException | None = None
        try:
            for request in requests:
                if not self._put(request):
                    return
        except BaseException as raised:  # noqa: BLE001 - `take` raises it on the answering thread
            error = raised
        with self._condition:
            self._is_complete, self._error = True, error
            self._condition.notify_all()

    def _put(self, request: pb.IntrospectRequest) -> bool:
        with self._condition:
            self._condition.wait_for(lambda: self._is_closed or len(self._waiting) < _READ_AHEAD)
            self._waiting.append(request)
            self._condition.notify_all()
            return not self._is_closed

    def wake(self) -> None:
        """Make ``take`` return, from any thread."""
        with self._condition:
            self._is_awake = True
            self._condition.notify_all()

    def close(self) -> None:
        """Make the reading thread end: ``take`` is not called again."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()

    def take(self, patience: float | None) -> pb.IntrospectRequest | None:
        """Return the next request; None after ``patience`` seconds, after ``wake`` and after the
        last request.

        Raises the error that reading the requests raised.
        """
        with self._condition:
            self._condition.wait_for(
                lambda: self._waiting or self._is_awake or self._is_complete, patience
            )
            self._is_awake = False
            if self._waiting:
                request = self._waiting.popleft()
                self._condition.notify_all()
                return request
            if self._error is not None:
                raise self._error
            return None


class _Watched:
    """The tokens that one stream was told are active, each with its correlation ID."""

    def __init__(self, revocations: Revocations, clock: Callable[[], float]) -> None:
        self._revocations = revocations
        self._clock = clock
        self._generation = revocations.generation
        self._count = 0
        self._tokens: dict[int, tuple[str, Principal]] = {}
        # A heap of expiry times, the soonest first.
        self._ends: list[tuple[float, int]] = []

    @property
    def patience(self) -> float | None:
        """Seconds until the next watched token may expire; None where none is watched."""
        if not self._ends:
            return None
        return min(max(0.0, self._ends[0][0] - self._clock()), _LOOK_EVERY)

    def add(self, correlation_id: str, token: Principal) -> bool:
        """Watch one more token; returns whether there was room."""
        if len(self._tokens) >= MOST_WATCHED:
            return False
        self._count += 1
        self._tokens[self._count] = (correlation_id, _slim(token))
        # With the leeway that the verifier grants: until then the token is accepted.
        heapq.heappush(self._ends, ((token.expires_at or 0) + LEEWAY, self._count))
        return True

    def pop_ended(self) -> Sequence[str]:
        """Stop watching the tokens that have expired or were revoked, and return their correlation
        IDs.
        """
        ended = []
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            ended.append(self._tokens.pop(heapq.heappop(self._ends)[1])[0])
        generation = self._revocations.generation
        if generation != self._generation:
            # Set before the tokens are checked: a change meanwhile causes another check.
            self._generation = generation
            is_revoked = self._revocations.is_revoked
            revoked = {n for n, (_, token) in self._tokens.items() if is_revoked(token)}
            if revoked:
                ended += [self._tokens.pop(number)[0] for number in sorted(revoked)]
                self._ends = [end for end in self._ends if end[1] not in revoked]
                heapq.heapify(self._ends)
        return ended


def _slim(token: Principal) -> Principal:
    """Return a copy with only what revocation needs: a stream may keep thousands."""
    return replace(
        token,
        roles=frozenset(),
        scopes=frozenset(),
        thumbprint="",
        claims=MappingProxyType({"iat": token.claims.get("iat", 0)}),
    )
