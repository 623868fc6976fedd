"""What a run did with each file of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from secure_tls.check import describe
from secure_tls.errors import TLSFileError

if TYPE_CHECKING:
    from pathlib import Path


class FileState(StrEnum):
    """What a run did with a file or a certificate."""

    CREATED = "created"
    KEPT = "kept"
    EXPIRED = "expired"
    RENEWED = "renewed"
    REPAIRED = "repaired"
    SKIPPED = "skipped"
    FAILED = "failed"
    REVOKED = "revoked"
    ALREADY_REVOKED = "already revoked"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One file: ``until`` is seconds since the epoch, ``note`` gives the reason, if any.

    ``who`` comes from a certificate and may hold any character.
    """

    path: Path
    state: FileState
    who: str = ""
    until: float | None = None
    note: str = ""

    @classmethod
    def of(cls, path: Path, state: FileState, note: str = "") -> Self:
        """The outcome for a file, with who and until read from it now."""
        if path.suffix == ".key":
            return cls(path, state, note=note)
        try:
            finding = describe(path)
        except TLSFileError:
            # `secure-certs verify` says what is wrong with it.
            return cls(path, state, "not readable as a certificate", note=note)
        return cls(path, state, finding.who, finding.until, note)

    @property
    def created(self) -> bool:
        return self.state is FileState.CREATED
