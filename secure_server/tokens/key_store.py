"""The signing keys of a running server, which change by the clock and with their file."""

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
    """Hands out the keys that hold now.

    A class with a thread, because keys change by the clock. ``Reloads`` follows their file, which
    others change: ``secure-server keys`` and the servers beside this one. A file that cannot be
    read takes nothing away from what was good.
    """

    def __init__(
        self, file: KeyFile, *, lifetime: int, publishing: int, clock: Callable[[], float]
    ) -> None:
        """Read the file; it is made on first use.

        A key that has signed for ``lifetime`` seconds is replaced by one that is published for
        ``publishing`` seconds first; 0 is never. ``clock`` gives seconds since the epoch. Raises
        ``SigningKeyError``.
        """
        self._file = file
        self._lifetime = lifetime
        self._publishing = publishing
        self._clock = clock
        self._log = logs.logger(__name__)
        self._lock = threading.Lock()
        self._withdrawn: Callable[[], object] = bool
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
        """How the reloads of the file went."""
        return self._read.status

    def ring(self) -> KeyRing:
        """Return the keys as they are now. No lock, no file."""
        return self._ring.at(self._clock())

    def find(self, key_id: str) -> VerificationKey | None:
        """Return the key that verifies tokens of this ``kid``.

        One that is not known is looked for in the file: the server beside this one may sign with
        it already.
        """
        key = self.ring().keys.get(key_id)
        if key is None:
            self.look()
            key = self.ring().keys.get(key_id)
        return key

    def start(self, withdrawn: Callable[[], object]) -> None:
        """Follow the clock in the background; ``withdrawn`` is called when a key has gone."""
        self._withdrawn = withdrawn
        self._thread = threading.Thread(target=self._run, name="signing keys", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop. A process that holds the lock of the file is hardly waited for."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_A_MOMENT)

    def look(self) -> None:
        """See whether the file has changed. Raises nothing."""
        self._read.look()

    def tick(self) -> None:
        """Go on with the clock, and make the change that is due. Raises nothing."""
        self._advance()
        now = self._clock()
        if now < self._retry_at:
            return
        try:
            if self._due(self._ring) is not None:
                # Not under our own lock: another process may hold that of the file.
                self._file.change(self._due, now)
                self.look()
        except SigningKeyError as error:
            self._retry_at = now + _RETRY_SECONDS
            self._log.warning("the signing keys cannot be changed", reason=str(error))

    def _run(self) -> None:
        while not self._closing.wait(_LOOK_SECONDS):
            try:
                self.tick()
            except Exception:  # noqa: BLE001 - keys must be withdrawn whatever happens
                # As text: some renderers of exceptions print what variables hold.
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
                # Whom these keys vouched for has to be looked at again.
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
