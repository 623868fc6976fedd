"""The files of a channel: which set is in use, and whether there is another to take up."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secure_client._clock import Clock
from secure_client.errors import ConfigurationError

if TYPE_CHECKING:
    from secure_client._endpoint import Endpoint
    from secure_client._identity import Identity

_logger = logging.getLogger("secure_client")

# A set that cannot be used is tried again after at most so many seconds.
_LONGEST_PAUSE = 30.0

_Signature = tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True, slots=True)
class _Failure:
    signature: _Signature
    count: int
    retry_at: float


class Files:
    """Certificate, key and CA of ``endpoint``, taken up together or not at all.

    ``identity`` is the set in use. Whoever gets another one from ``read`` says what became of it:
    ``take`` or ``refuse``. One at a time does so; ``changed`` may be asked by anybody.
    """

    def __init__(self, endpoint: Endpoint, clock: Clock | None = None) -> None:
        """Raises as ``Endpoint.read``."""
        self._endpoint = endpoint
        self._clock = clock or Clock()
        # Looked at before it is read: what changes in between is noticed later.
        self._signature = self._look()
        self._tried = self._signature
        self._failure: _Failure | None = None
        self.identity = endpoint.read()

    def changed(self) -> bool:
        """Whether ``read`` is worth while: a ``stat`` of each file says so."""
        return self._is_due(self._look())

    def read(self) -> Identity | None:
        """The set to take up, None while there is no other.

        Raises ``TLSError`` where the files do not make one, half replaced for instance, and
        ``ConfigurationError`` for one of somebody else.
        """
        self._tried = self._look()
        if not self._is_due(self._tried):
            return None
        found = self._endpoint.read()
        if found == self.identity:
            self._taken(found)
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
        self._taken(identity)
        _logger.info("the channel to %s has taken up its new files", self._endpoint.target)

    def refuse(self, reason: str) -> None:
        """Keep the set in use, and try the other again after a while, or once it has changed."""
        last = self._failure
        count = 1 if last is None or last.signature != self._tried else last.count + 1
        pause = 0.0 if count == 1 else min(2.0 ** (count - 1), _LONGEST_PAUSE)
        self._failure = _Failure(self._tried, count, self._clock.elapsed() + pause)
        # Files that are being written are no news; the same ones a look later are.
        if count == 2:
            _logger.warning(
                "the channel to %s keeps the files that it has: %s", self._endpoint.target, reason
            )

    def _taken(self, identity: Identity) -> None:
        self.identity = identity
        self._signature = self._tried
        self._failure = None

    def _is_due(self, signature: _Signature) -> bool:
        if signature == self._signature:
            return False
        failure = self._failure
        return (
            failure is None
            or failure.signature != signature
            or self._clock.elapsed() >= failure.retry_at
        )

    def _look(self) -> _Signature:
        return tuple(_stat(path) for path in self._endpoint.paths)


def _stat(path: str | os.PathLike[str]) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - follows the links that Kubernetes swaps
    except OSError:
        return None
    # The time of the last change also tells of a mode that has been put right.
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
