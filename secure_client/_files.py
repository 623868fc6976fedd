"""The files of a channel: the set in use, and whether there is a new one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from secure_base.reloading import Follower, ReloadStatus, signature
from secure_client._clock import Clock
from secure_client.errors import ConfigurationError

if TYPE_CHECKING:
    from secure_client._endpoint import Endpoint
    from secure_client._identity import Identity

_logger = logging.getLogger("secure_client")

# Seconds between two checks of the files of all channels: three `stat`s a channel.
_LOOK_EVERY = 1.0


def _log(level: str, event: str, **values: object) -> None:
    text = ", ".join(f"{name}: {value}" for name, value in values.items())
    getattr(_logger, level)("%s (%s)", event, text)


FOLLOWER = Follower(
    "secure_client files",
    lambda error: _log("warning", "the client's files cannot be checked", error=error),
    interval=_LOOK_EVERY,
)
"""One thread checks the files of all channels of this process."""


class Files:
    """Certificate, key and CA of ``endpoint``, used together or not at all.

    ``identity`` is the set in use. After ``read`` has returned another one, the caller must call
    ``take`` or ``refuse``. One thread at a time does so; ``changed`` may be called by any thread.
    """

    def __init__(self, endpoint: Endpoint, clock: Clock | None = None) -> None:
        """Raises as ``Endpoint.read``."""
        self._endpoint = endpoint
        self._clock = clock or Clock()
        self._status = ReloadStatus(
            f"files of {endpoint.target}", clock=self._clock.elapsed, wall=self._clock.wall
        )
        self._status.log = _log
        # Before reading: a change in between is then noticed later.
        self._tried = signature(endpoint.paths)
        self.identity = endpoint.read()
        self._status.succeed(self._tried, changed=False)

    def changed(self) -> bool:
        """Whether to call ``read``, by a ``stat`` of each file."""
        return self._status.is_due(signature(self._endpoint.paths))

    def read(self) -> Identity | None:
        """The set to use next, None while there is no new one.

        Raises ``TLSError`` where the files make no set, half replaced for instance, and
        ``ConfigurationError`` for a set with another SPIFFE ID.
        """
        self._tried = signature(self._endpoint.paths)
        if not self._status.is_due(self._tried):
            return None
        found = self._endpoint.read()
        if found == self.identity:
            self._status.succeed(self._tried, changed=False)
            return None
        was, would_be = self.identity.spiffe_id(), found.spiffe_id()
        if was != would_be:
            # The server treats a refresh token from another SPIFFE ID as stolen: the session ends.
            raise ConfigurationError(
                f"{self._endpoint.certificate} is now for {would_be or 'no SPIFFE ID'} instead of "
                f"{was or 'no SPIFFE ID'}: open another channel for it."
            )
        return found

    def is_pressing(self) -> bool:
        """Whether the set in use has expired, so that any other may replace it."""
        return self.identity.has_expired(self._clock.wall())

    def take(self, identity: Identity) -> None:
        """Use this set from now on."""
        self.identity = identity
        self._status.succeed(self._tried, changed=True)

    def refuse(self, reason: str) -> None:
        """Keep the set in use; try the other again later, or once its files change."""
        self._status.fail(self._tried, reason)
