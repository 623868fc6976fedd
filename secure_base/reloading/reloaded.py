"""A value that is loaded again when its source changes."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

from secure_base.reloading.status import SETTLED, ReloadStatus

T = TypeVar("T")


class Reloaded(Generic[T]):
    """A ``Watched`` value. What cannot be loaded leaves the last good one in its place.

    It has no thread: its owner calls ``look``, as ``Reloads`` does for what it follows.
    """

    def __init__(
        self,
        source: str,
        load: Callable[[T | None], T],
        *,
        errors: tuple[type[Exception], ...],
        version: Callable[[], object] | None = None,
        first: T | None = None,
        problems: Callable[[T], Sequence[str]] = lambda _: (),
        describe: Callable[[T], Mapping[str, object]] = lambda _: {},
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Load the value for the first time, unless there is a ``first``.

        ``load`` is given the last good value, and may return that very one. It raises one of
        ``errors``, whose texts are told and must hold no secrets; of any other exception nothing
        but the type is told. ``version`` returns what differs when the source does: ``signature``
        of its files; it raises ``OSError`` where they must not be opened. Without one the value is
        loaded at each look, and failures are told at once. ``problems`` says what of a new value
        could not be used, in sentences, and ``describe`` what the log has about it. For ``source``
        and the clocks see ``ReloadStatus``. Raises what ``load`` raises.
        """
        self.status = ReloadStatus(
            source, settled=SETTLED if version else 0.0, clock=clock, wall=wall
        )
        self._load = load
        self._errors = errors
        # Every look at a source without a version finds another one.
        self._version = version or object
        self._problems = problems
        self._describe = describe
        self._subscribers: tuple[Callable[[T], object], ...] = ()
        # One that may be entered again: a subscriber may look, and finds nothing newer.
        self._lock = threading.RLock()
        self._is_loading = False
        if first is not None:
            self.value = first
            return
        seen = self._version()  # before the load: what changes in between is loaded again
        self.value = load(None)
        self._judge(seen, problems(self.value), describe(self.value), changed=False)

    def subscribe(self, told: Callable[[T], object]) -> Callable[[], None]:
        """Call ``told`` with each new value, on the thread that loads it; return what ends that.

        While it runs, no other value is loaded.
        """
        with self._lock:
            self._subscribers = (*self._subscribers, told)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(one for one in self._subscribers if one is not told)

        return unsubscribe

    def look(self) -> None:
        """Load the value if its source has changed, or if it is time to try again. Raises nothing.

        Any thread may call it; of several at once, one loads and the others wait.
        """
        with self._lock:
            if self._is_loading:
                return
            try:
                version = self._version()
            except OSError as error:
                # Not loaded: to open a pipe waits for its writer, and all other sources with it.
                self.status.fail(
                    (error.errno, error.filename), f"{error.filename}: {error.strerror}."
                )
                return
            if not self.status.is_due(version):
                return
            self._is_loading = True
            try:
                self._reload(version)
            finally:
                self._is_loading = False

    def want(self, waiting: Callable[[], AbstractContextManager[object]] = nullcontext) -> bool:  # noqa: ARG002 - there is no network to wait for
        """Look now, as ``OnDemand`` says; returns True."""
        self.look()
        return True

    def replace(self, value: T) -> None:
        """Put a value in the place of the present one, and tell the subscribers."""
        with self._lock:
            self.value = value
            for told in self._subscribers:
                try:
                    told(value)
                except Exception as error:  # noqa: BLE001 - the others have to be told
                    self.status.log(
                        "error",
                        "a reloaded value was refused by the code that uses it",
                        source=self.status.source,
                        error=type(error).__name__,
                        # Without the message: it may hold what was loaded.
                        traceback="".join(traceback.format_tb(error.__traceback__)),
                    )

    def _reload(self, version: object) -> None:
        before = self.value
        try:
            after = self._load(before)
            problems, values = self._problems(after), self._describe(after)
            changed = after is not before and bool(after != before)
        except self._errors as error:
            self.status.fail(version, str(error))
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the last good value stays
            self.status.fail(version, f"{type(error).__name__} while it was loaded.")
            return
        if changed:
            self.replace(after)
        self._judge(version, problems, values, changed=changed)

    def _judge(
        self,
        version: object,
        problems: Sequence[str],
        values: Mapping[str, object],
        *,
        changed: bool,
    ) -> None:
        if problems:
            self.status.fail(version, " ".join(problems))
        else:
            self.status.succeed(version, changed=changed, **values)
