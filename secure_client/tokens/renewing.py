"""Holds one token and renews it before it expires: one fetch for all callers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from secure_client._clock import Clock
from secure_client.errors import TokenError, TokenUnavailableError
from secure_client.tokens.source import AccessToken

if TYPE_CHECKING:
    from secure_client._identity import Identity

_logger = logging.getLogger("secure_client")

# Renewal begins this many seconds before expiry, or at four fifths of a short lifetime.
_RENEW_AHEAD = 60.0
# A token this close to expiry, in seconds, is not sent: it might expire under way.
_LAST_MOMENT = 5.0
# Seconds after a failure during which no new fetch begins.
_HOLD_OFF = 1.0
# Seconds. A fetch has a deadline of its own; this is for one that hangs none the less.
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """A token and the seconds until it expires."""

    token: AccessToken
    lifetime: float


@dataclass(frozen=True, slots=True)
class _Held:
    token: AccessToken
    renew_at: float
    ends_at: float


class _Flight:
    """One fetch, and its result."""

    def __init__(self, refused: AccessToken | None) -> None:
        self.refused = refused
        self.landed = threading.Event()
        self.token: AccessToken | None = None
        self.error: TokenError | None = None

    def result(self) -> AccessToken:
        if not self.landed.wait(_PATIENCE):
            raise TokenUnavailableError("The token server does not answer; try again later.")
        if self.token is not None:
            return self.token
        assert self.error is not None
        # One exception per thread: tracebacks grow on what is raised twice.
        raise type(self.error)(str(self.error), self.error.cause)


class RenewingToken:
    """``fetch`` gets the refused token, which it must not return, or None; raises ``TokenError``.

    While the old token is valid it is returned at once, and the renewal runs in the background.
    All timers use ``clock.elapsed``, so steps of the system's clock do not affect them.
    """

    def __init__(self, fetch: Callable[[AccessToken | None], Fetched], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._flight: _Flight | None = None
        self._failed: tuple[float, _Flight] | None = None

    def token(self, refused: AccessToken | None = None) -> AccessToken:
        # Read without the lock: `_held` is replaced whole.
        held, now = self._held, self._clock.elapsed()
        if held is not None and held.token != refused and now < held.renew_at:
            return held.token
        with self._lock:
            held = self._held
            usable = held is not None and held.token != refused and now < held.ends_at
            if held is not None and usable and now < held.renew_at:
                return held.token
            if self._failed is not None and now < self._failed[0]:
                if held is not None and usable:
                    return held.token
                flight, mine = self._failed[1], False
            elif self._flight is not None:
                flight, mine = self._flight, False
            else:
                flight, mine = _Flight(refused), True
                self._flight = flight
        if mine:
            # Not a daemon, and not this thread: Ctrl-C and the end of the program wait for the
            # answer. A refresh token works once; the next one must not be lost.
            threading.Thread(target=self._fly, args=(flight,), daemon=False).start()
        if held is not None and usable:
            return held.token
        return flight.result()

    def _fly(self, flight: _Flight) -> None:
        held = None
        try:
            fetched = self._fetch(flight.refused)
            held = self._hold(fetched)
            flight.token = fetched.token
        except TokenError as error:
            flight.error = type(error)(str(error), error.cause)
        except Exception as error:  # noqa: BLE001 - others wait for this flight
            flight.error = TokenUnavailableError(
                f"The token could not be fetched ({type(error).__name__})."
            )
        if flight.error is not None:
            _logger.warning("no fresh access token: %s", flight.error)
        with self._lock:
            self._flight = None
            self._failed = None
            if held is not None:
                self._held = held
            else:
                self._failed = (self._clock.elapsed() + _HOLD_OFF, flight)
        flight.landed.set()

    def _hold(self, fetched: Fetched) -> _Held:
        now, lifetime = self._clock.elapsed(), fetched.lifetime
        return _Held(
            fetched.token,
            now + lifetime - min(_RENEW_AHEAD, lifetime / 5),
            now + lifetime - min(_LAST_MOMENT, lifetime / 10),
        )


class RenewingTokens:
    """One ``RenewingToken`` for all channels with the same identity.

    ``fetch`` gets the identity, and what ``RenewingToken`` passes to it.
    """

    def __init__(
        self, fetch: Callable[[Identity, AccessToken | None], Fetched], clock: Clock
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._latest: tuple[Identity, RenewingToken] | None = None

    def of(self, identity: Identity) -> RenewingToken:
        with self._lock:
            # Only the latest is kept: channels with the identity before hold their own.
            if self._latest is None or self._latest[0] != identity:
                renewing = RenewingToken(partial(self._fetch, identity), self._clock)
                self._latest = (identity, renewing)
            return self._latest[1]
