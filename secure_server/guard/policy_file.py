"""The policy of a file: read at the start, taken up again as the file changes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from secure_server import logs
from secure_server.audit.errors import AuditLoggerError
from secure_server.audit.loggers import FLUSH, Loggers
from secure_server.audit.options import ConfiguredLogger, configured_loggers
from secure_server.audit.plugin import announced
from secure_server.authz import Policy
from secure_server.config import ConfigError
from secure_server.watch import Watch

TakeUp = Callable[[Policy], object]


class PolicyFile:
    """One policy in force, with the audit loggers that it names.

    A file that cannot be used keeps the last good policy: a server that stops because somebody
    saved a comma too many would be worse than one that goes on with what it has.
    """

    def __init__(self, path: Path, *, accept: TakeUp | None = None) -> None:
        """Read the file, and begin to tell its audit loggers.

        ``accept`` raises for a policy that is no good though it parses. Raises what it raises,
        ``PolicyError``, ``AuditLoggerError``, and ``ConfigError`` where the file cannot be read.
        """
        self._path = path
        self._accept = accept
        self._log = logs.logger(__name__)
        self._told: list[TakeUp] = []
        self.loggers = Loggers()
        self.failures = 0
        self.failure = ""
        """Why what the file says now is not used; empty where it is."""
        self._suspected = ""
        self._refused: tuple[str, Exception] | None = None
        # Made before the first look into the file, so that no change between the two is missed.
        self._watch = Watch([path], self._reload)
        self._text = _read(path)
        try:
            self.policy = self._use(self._text)
        except BaseException:
            self.loggers.close()
            raise
        self.loaded_at = time.time()

    @property
    def warnings(self) -> list[str]:
        """What an operator should see to, in sentences."""
        return [f"The new policy is not used: {self.failure}"] if self.failure else []

    @property
    def value(self) -> Policy:
        """The policy in force."""
        return self.policy

    def subscribe(self, told: TakeUp) -> Callable[[], None]:
        """Call ``told`` with each new policy; return what ends that."""
        self._told.append(told)
        return lambda: self._told.remove(told)

    def start(self) -> None:
        """Begin to look at the file."""
        self._watch.start()

    def close(self, seconds: float = FLUSH) -> None:
        """Look no more, and give the audit loggers so long to write what they have."""
        self._watch.close()
        self.loggers.close(seconds)

    def _use(self, text: str) -> Policy:
        policy, configured = _parse(text, self._path)
        if self._accept is not None:
            self._accept(policy)
        self.loggers.replace(configured, policy.audit_condition)
        return policy

    def _reload(self) -> bool:
        try:
            text = _read(self._path)
            if text != self._text:
                self._replace(text)
        except Exception as error:  # noqa: BLE001 - whatever it is, the last good policy stays
            return self._fail(error)
        self.failure = self._suspected = ""
        return True

    def _replace(self, text: str) -> None:
        if self._refused is not None and self._refused[0] == text:
            raise self._refused[1].with_traceback(None)
        try:
            self.policy = self._use(text)
        except AuditLoggerError:
            raise  # that may be another in a second, with the same text
        except Exception as error:
            self._refused = (text, error)
            raise
        self._text = text
        self.loaded_at = time.time()
        self._log.info("policy taken up", file=os.fspath(self._path), policy=self.policy.name)
        for told in tuple(self._told):
            told(self.policy)

    def _fail(self, error: Exception) -> bool:
        """Say what is wrong when it is so for the second time: a writer may be at it just now."""
        reason = str(error)
        if reason == self._suspected and reason != self.failure:
            self.failure = reason
            self.failures += 1
            self._log.error(
                "the policy cannot be used; the last good one stays",
                file=os.fspath(self._path),
                line=getattr(error, "line", None),
                column=getattr(error, "column", None),
                reason=reason,
            )
        self._suspected = reason
        return False


def read_policy(path: Path) -> Policy:
    """Read a policy file, and open nothing of what it names.

    Raises ``PolicyError``, and ``ConfigError`` where the file cannot be read.
    """
    policy, _ = _parse(_read(path), path)
    return policy


def _parse(text: str, path: Path) -> tuple[Policy, tuple[ConfiguredLogger, ...]]:
    origin = os.fspath(path)
    policy = Policy.parse(text, origin=origin, known_loggers=announced())
    return policy, configured_loggers(text, origin=origin, folder=path.parent)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the policy: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: the policy is not UTF-8.") from None
