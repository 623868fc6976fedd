"""The signing keys of a running server, which change with time and with their file."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime

from secure_base.reloading import Reloaded, ReloadStatus
from secure_server import logs
from secure_server.auth.keys import VerificationKey
from secure_server.tokens.key_file import KeyFile
from secure_server.tokens.key_ring import KeyRing, KeyState
from secure_server.tokens.signing_key import SigningKeyError

_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 3600.0
_A_MOMENT = 0.5


class KeyStore:
    """Provides the keys that sign and verify now.

    A class with a thread, because keys change with time. ``Reloads`` follows their file, which
    ``secure-server keys`` and other servers change too. While the file cannot be read, the last
    keys stay in use.
    """

    def __init__(
        self, file: KeyFile, *, lifetime: int, publishing: int, clock: Callable[[], float]
    ) -> None:
        """Read the file, or create it with a first key.

        A key that has signed for ``lifetime`` seconds is replaced by one that is published for
        ``publishing`` seconds first; a ``lifetime`` of 0 means never. ``clock`` gives seconds since
        the epoch. Raises ``SigningKeyError``.
        """
        self._file = file
        self._lifetime = lifetime
        self._publishing = publishing
        self._clock = clock
        self._log = logs.logger(__name__)
        self._lock = threading.Lock()
        self._withdrawn: Callable[[], object] = lambda: None
        self._retry_at = float("-inf")
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        file.open(clock())
        self._read: Reloaded[KeyRing] = Reloaded(
            "signing-key",
            lambda _: file.read(clock()),
            errors=(SigningKeyError,),
            version=file.version,
        )
        self._ring = self._read.value
        self._read.subscribe(lambda _: self._advance())

    @property
    def status(self) -> ReloadStatus:
        """The results of reloading the file."""
        return self._read.status

    def ring(self) -> KeyRing:
        """Return the present keys. Takes no lock and reads no file."""
        return self._ring.at(self._clock())

    def find(self, key_id: str) -> VerificationKey | None:
        """Return the key that verifies tokens of this ``kid``.

        An unknown key is looked for in the file: another server may already sign with it.
        """
        key = self.ring().keys.get(key_id)
        if key is None:
            self.look()
            key = self.ring().keys.get(key_id)
        return key

    def start(self, withdrawn: Callable[[], object]) -> None:
        """Follow the clock in the background; call ``withdrawn`` when a key has been removed."""
        self._withdrawn = withdrawn
        self._thread = threading.Thread(target=self._run, name="signing keys", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop. It waits half a second at the most for another process that has locked the file."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_A_MOMENT)

    def look(self) -> None:
        """Reload the file if it has changed. Raises nothing."""
        self._read.look()

    def tick(self) -> None:
        """Update the keys' states by the clock, and make a change that is due. Raises nothing."""
        self._advance()
        now = self._clock()
        if now < self._retry_at:
            return
        try:
            if self._due(self._ring) is not None:
                # Without `_lock`: another process may hold the lock of the file for long.
                self._file.change(self._due, now)
                self.look()
        except SigningKeyError as error:
            self._retry_at = now + _RETRY_SECONDS
            self._log.warning("the signing keys cannot be changed", reason=str(error))

    def _run(self) -> None:
        while not self._closing.wait(_LOOK_SECONDS):
            try:
                self.tick()
            except Exception:  # noqa: BLE001 - the thread must continue to withdraw keys
                # As text: some renderers of exceptions print the values of variables.
                self._log.error("following the keys failed", traceback=traceback.format_exc())

    def _due(self, ring: KeyRing) -> KeyRing | None:
        now = self._clock()
        is_old = now - ring.signing.signs_from >= self._lifetime > 0
        if is_old and ring.next is None:
            return ring.rotated(now, self._publishing)
        return ring if ring.has_dead_keys else None

    def _advance(self) -> None:
        with self._lock:
            before = self._ring
            after = self._ring = self._read.value.at(self._clock())
            if after is before:
                return
            if before.keys.keys() - after.keys.keys():
                # Callers whose tokens these keys signed must be authenticated again.
                self._withdrawn()
            if _summary(before) != _summary(after):
                self._log.info("signing keys changed", **_summary(after))


def _summary(ring: KeyRing) -> dict[str, object]:
    following = ring.next
    return {
        "signing": ring.key_id,
        "next": None if following is None else following.key_id,
        "signs_from": (
            None
            if following is None
            else datetime.fromtimestamp(following.signs_from, UTC).isoformat()
        ),
        "verifying": [e.key.key_id for e in ring.entries if e.state is KeyState.VERIFYING],
    }
