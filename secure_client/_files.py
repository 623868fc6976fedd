"""The files of a channel: which set is in use, and whether there is another to use."""

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

# Seconds between two looks at the files of all channels: three `stat`s a channel.
_LOOK_EVERY = 1.0


def _log(level: str, event: str, **values: object) -> None:
    text = ", ".join(f"{name}: {value}" for name, value in values.items())
    getattr(_logger, level)("%s (%s)", event, text)


FOLLOWER = Follower(
    "secure_client files",
    lambda error: _log("warning", "the client's files cannot be looked at", error=error),
    interval=_LOOK_EVERY,
)
"""One thread looks at the files of every channel of this process."""


class Files:
    """Certificate, key and CA of ``endpoint``, used together or not at all.

    ``identity`` is the set in use. Whoever gets another one from ``read`` says what became of it:
    ``take`` or ``refuse``. One at a time does so; ``changed`` may be asked by anybody.
    """

    def __init__(self, endpoint: Endpoint, clock: Clock | None = None) -> None:
        """Raises as ``Endpoint.read``."""
        self._endpoint = endpoint
        self._clock = clock or Clock()
        self._status = ReloadStatus(
            f"files of {endpoint.target}", clock=self._clock.elapsed, wall=self._clock.wall
        )
        self._status.log = _log
        # Looked at before it is read: what changes in between is noticed later.
        self._tried = signature(endpoint.paths)
        self.identity = endpoint.read()
        self._status.succeed(self._tried, changed=False)

    def changed(self) -> bool:
        """Whether ``read`` is worth while: a ``stat`` of each file says so."""
        return self._status.is_due(signature(self._endpoint.paths))

    def read(self) -> Identity | None:
        """The set to use next, None while there is no other.

        Raises ``TLSError`` where the files do not make one, half replaced for instance, and
        ``ConfigurationError`` for one of somebody else.
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
            # A refresh token in somebody else's hands counts as stolen, and ends its session.
            raise ConfigurationError(
                f"{self._endpoint.certificate} is now a certificate for {would_be or 'nobody'} "
                f"instead of {was or 'nobody'}: open another channel to be somebody else."
            )
        return found

    def is_pressing(self) -> bool:
        """Whether the set in use has expired, so that any other is as good."""
        return self.identity.has_expired(self._clock.wall())

    def take(self, identity: Identity) -> None:
        """Use this set from now on."""
        self.identity = identity
        self._status.succeed(self._tried, changed=True)

    def refuse(self, reason: str) -> None:
        """Keep the set in use, and try the other again after a while, or once it has changed."""
        self._status.fail(self._tried, reason)
