"""The errors of this package: each has a stable ``code`` and a sentence for people.

No message ever holds a private key. Text that comes from a certificate appears only as an ASCII
literal, so that it cannot forge a line of a log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class TLSError(Exception):
    """The root of every error of this package. ``code`` is stable; the message is not."""

    def __init__(self, code: str, message: str, *rest: object) -> None:
        super().__init__(code, message, *rest)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class SpiffeIDError(TLSError):
    """A text is not a SPIFFE ID (SPIFFE-ID standard, section 2) or not a trust domain."""


class PeerError(TLSError):
    """A peer's certificate does not name one identity that can be trusted."""


class PathError(TLSError):
    """No valid path leads from a certificate to a trust anchor."""


class AuthorityError(TLSError):
    """The authority refuses to issue this certificate."""


class TLSFileError(TLSError):
    """A file, named by ``path``, is missing, unreadable, unsafe or not what it should be."""

    def __init__(self, code: str, message: str, path: Path) -> None:
        super().__init__(code, message, path)
        self.path = path


class RevocationListError(TLSFileError):
    """A revocation list is forged, truncated or of a kind that is not supported."""
