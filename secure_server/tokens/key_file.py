"""The file that holds the signing keys: PEM (RFC 7468), above each key a few lines about it.

A file with one bare PEM key works too; versions before key rotation wrote such files.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from secure_base.atomic_files import (
    NoLocksError,
    locked,
    make_folder,
    remove_drafts,
    replace,
    write_new,
)
from secure_base.creatable import creation_error
from secure_base.reloading import signature
from secure_server.tokens.key_ring import KeyRing
from secure_server.tokens.signing_key import ALGORITHM, SigningKey, SigningKeyError

_BEGIN = re.compile(rb"^-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----", re.MULTILINE)
_KEY = re.compile(
    rb"^-----BEGIN ((?:[A-Z]+ )?PRIVATE KEY)-----.+?^-----END \1-----", re.MULTILINE | re.DOTALL
)
_LINE = re.compile(r"^(Key-ID|Published|Signs-From): *(.*?)\s*$", re.MULTILINE)

_SHORTEST_PASSPHRASE = 32
"""Characters. The passphrase is stretched by only 2048 rounds of PBKDF2, so a word could be
guessed; 32 random characters cannot."""


class KeyFile:
    """Reads and changes the keys of one file. Each change replaces the file in one step."""

    def __init__(self, path: Path, passphrase_file: Path | None = None) -> None:
        """With a passphrase file, keys are written encrypted (PKCS #8)."""
        self.path = path
        self._passphrase_file = passphrase_file

    def __repr__(self) -> str:
        return f"KeyFile({str(self.path)!r})"

    def version(self) -> object:
        """Return a value that differs after every change of the file or its passphrase."""
        paths = [self.path, self._passphrase_file]
        return signature(path for path in paths if path is not None)

    def open(self, now: float) -> KeyRing:
        """Read the keys; where there is no file, generate the first key, which signs at once.

        Raises ``SigningKeyError``.
        """
        if not self.path.exists():
            self._make(SigningKey.generate(int(now), int(now)))
        return self.read(now)

    def look(self, now: float) -> KeyRing | None:
        """Read the keys as ``open`` would, and make none: None where there is none yet.

        Raises ``SigningKeyError`` as ``open`` would, but for a disk that is full.
        """
        if self.path.exists():
            return self.read(now)
        self._passphrase()
        if (error := creation_error(self.path)) is not None:
            raise self._cannot_be_made(error)
        if self.path.is_symlink():
            return self.read(now)  # raises: the link leads nowhere, and no key is made behind it
        return None

    def read(self, now: float) -> KeyRing:
        """Read the keys. ``now`` is seconds since the epoch.

        Raises ``SigningKeyError`` where one of them cannot be used or others may read the file.
        """
        data, written = _read_private(
            self.path,
            "the signing key",
            "; if another user may have read it, delete it: the server generates a new one",
        )
        keys = list(self._parse(data, min(int(written), int(now))))
        if not keys:
            raise SigningKeyError(f"{self.path}: holds no private key in PEM.")
        twice = [key_id for key_id, n in Counter(key.key_id for key in keys).items() if n > 1]
        if twice:
            raise SigningKeyError(f"{self.path}: holds the key {twice[0]} twice. Take one out.")
        return KeyRing(keys, now)

    def change(self, step: Callable[[KeyRing], KeyRing | None], now: float) -> KeyRing:
        """Replace the keys by those that ``step`` returns, None for no change; return the keys.

        The file gets no expired keys, and all of its keys are encrypted or none. Other processes
        and threads that change the file wait. Raises ``SigningKeyError``.
        """
        try:
            with locked(self.path.parent):
                remove_drafts(self.path.parent, glob.escape(self.path.name))
                ring = self.read(now)
                changed = step(ring)
                if changed is None:
                    return ring
                replace(self.path, self._encode(changed), keep=True)
                return changed
        except NoLocksError:
            raise SigningKeyError(
                f"{self.path} cannot be changed: its file system has no locks. Choose another "
                "place for it as [tokens] signing_key."
            ) from None
        except OSError as error:
            raise SigningKeyError(f"{self.path} cannot be changed: {error.strerror}.") from None

    def _make(self, key: SigningKey) -> None:
        """Write the first key; the file appears complete, and of two writers the first wins."""
        data = self._encode(KeyRing([key], key.signs_from))
        try:
            make_folder(self.path.parent)
            with ExitStack() as held:
                # `write_new` alone keeps the file whole where a file system has no locks.
                with suppress(NoLocksError):
                    held.enter_context(locked(self.path.parent))
                write_new(self.path, data, secret=True)
        except OSError as error:
            raise self._cannot_be_made(error) from None

    def _cannot_be_made(self, error: OSError) -> SigningKeyError:
        return SigningKeyError(f"The signing key cannot be made: {self.path}: {error.strerror}.")

    def _encode(self, ring: KeyRing) -> bytes:
        passphrase = self._passphrase()
        encryption = (
            serialization.NoEncryption()
            if passphrase is None
            else serialization.BestAvailableEncryption(passphrase)
        )
        return b"\n".join(_encode(entry.key, encryption) for entry in reversed(ring.entries))

    def _parse(self, data: bytes, written: int) -> Iterator[SigningKey]:
        end = 0
        for match in _KEY.finditer(data):
            lines = dict(_LINE.findall(data[end : match.start()].decode("utf-8", "replace")))
            end = match.end()
            signs_from = self._time(lines.get("Signs-From"), written)
            published = self._time(lines.get("Published"), signs_from)
            yield SigningKey(self._load(match[0]), published, signs_from)
        # A truncated file must not be read as one without its newest key.
        is_ours = b"Signs-From:" in data
        if _BEGIN.search(data, end) or (is_ours and data[end:].strip()):
            raise SigningKeyError(f"{self.path}: its last private key is cut short.")

    def _time(self, text: str | None, default: int) -> int:
        if text is None:
            return default
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise SigningKeyError(
                f"{self.path}: {text[:40]!a} is no time such as 2026-01-31T12:00:00+00:00."
            ) from None
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())

    def _load(self, pem: bytes) -> ec.EllipticCurvePrivateKey:
        is_encrypted = b"ENCRYPTED" in pem
        passphrase = self._passphrase() if is_encrypted else None
        if is_encrypted and passphrase is None:
            raise SigningKeyError(
                f"{self.path}: the signing key is encrypted. Name the file with its passphrase as "
                "[tokens] signing_key_passphrase_file."
            )
        try:
            key = serialization.load_pem_private_key(pem, passphrase)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # Without the cause: a parser's error could quote the key.
            what = (
                f"the passphrase in {self._passphrase_file} does not open its signing key"
                if is_encrypted
                else "not a private key in PEM"
            )
            raise SigningKeyError(f"{self.path}: {what}.") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(
            key.curve, ec.SECP256R1
        ):
            raise SigningKeyError(
                f"{self.path}: not a key on the curve P-256, which {ALGORITHM} needs."
            )
        return key

    def _passphrase(self) -> bytes | None:
        """Read the passphrase at each use, which is rare, so that memory does not keep it."""
        if self._passphrase_file is None:
            return None
        data, _ = _read_private(self._passphrase_file, "the passphrase of the signing keys", "")
        passphrase = data.rstrip(b"\r\n")
        if len(passphrase) < _SHORTEST_PASSPHRASE:
            raise SigningKeyError(
                f"{self._passphrase_file}: the passphrase has less than {_SHORTEST_PASSPHRASE} "
                "characters. Generate a random one: `openssl rand -base64 32`."
            )
        return passphrase


def _encode(key: SigningKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    lines = (
        f"Key-ID: {key.key_id}\n"
        f"Published: {_time_text(key.published)}\n"
        f"Signs-From: {_time_text(key.signs_from)}\n"
    )
    return lines.encode() + key.private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def _time_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _read_private(path: Path, what: str, advice: str) -> tuple[bytes, float]:
    """Return the bytes of a file that only its owner may read, and when they were written."""
    try:
        with path.open("rb") as file:
            # The mode of the opened file, not of the file at the path a moment later.
            status = os.fstat(file.fileno())
            if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise SigningKeyError(
                    f"{path}: others can read {what}. Take it back with `chmod 600`{advice}."
                )
            return file.read(), status.st_mtime
    except OSError as error:
        raise SigningKeyError(f"{path}: {error.strerror}.") from None
