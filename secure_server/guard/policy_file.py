"""The policy of a file: read at the start, and reloaded when the file changes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from secure_base.reloading import Reloaded, ReloadStatus, signature
from secure_server.audit.errors import AuditLoggerError
from secure_server.audit.loggers import FLUSH, Loggers, told
from secure_server.audit.options import ConfiguredLogger, configured_loggers
from secure_server.audit.plugin import announced
from secure_server.authz import Policy, PolicyError
from secure_server.config import ConfigError


class PolicyFile:
    """The policy of a file: ``watched`` is the one in force, ``loggers`` those that it names.

    If a new file cannot be used, the last good policy stays in force: a typo must not stop the
    server. ``Reloads`` follows the file.
    """

    def __init__(self, path: Path, *, accept: Callable[[Policy], None] = lambda _: None) -> None:
        """Read the file, and begin to tell its audit loggers.

        ``accept`` raises ``PolicyError`` or ``ConfigError`` for a policy that is no good though it
        parses. Raises what it raises, ``AuditLoggerError``, and ``ConfigError`` where the file
        cannot be read.
        """
        self._path = path
        self._accept = accept
        self._text = ""
        self._lock = threading.Lock()
        self._is_closed = False
        self.loggers = Loggers()
        try:
            self.watched: Reloaded[Policy] = Reloaded(
                "policy",
                self._load,
                errors=(PolicyError, AuditLoggerError, ConfigError),
                version=lambda: signature([path]),
                describe=lambda policy: {"file": os.fspath(path), "policy": policy.name},
            )
        except BaseException:
            self.loggers.close()
            raise

    @property
    def status(self) -> ReloadStatus:
        """The outcome of the reloads."""
        return self.watched.status

    def look(self) -> None:
        """Reload the file if it has changed."""
        self.watched.look()

    def close(self, seconds: float = FLUSH) -> None:
        """Give the audit loggers ``seconds`` to write their backlog; open no others from now on."""
        with self._lock:
            self._is_closed = True
        self.loggers.close(seconds)

    def _load(self, last: Policy | None) -> Policy:
        text = _read(self._path)
        if last is not None and text == self._text:
            return last
        policy, configured = _parse(text, self._path)
        self._accept(policy)
        with self._lock:
            if self._is_closed and last is not None:
                return last
            self.loggers.replace(configured, policy.audit_condition)
        self._text = text
        return policy


def read_policy(path: Path) -> Policy:
    """Read a policy file, and open nothing of what it names.

    Raises ``PolicyError``, and ``ConfigError`` where the file cannot be read.
    """
    policy, _ = _parse(_read(path), path)
    return policy


def look_at_policy(path: Path, *, accept: Callable[[Policy], None] = lambda _: None) -> Policy:
    """Read a policy file as ``PolicyFile`` does, and open nothing of what it names.

    Raises what ``PolicyFile`` raises.
    """
    policy, configured = _parse(_read(path), path)
    accept(policy)
    for logger in told(configured, policy.audit_condition):
        logger.look()
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
