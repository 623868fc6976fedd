"""The parts of a guard that a configuration describes, opened."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from secure_base.reloading import Watched
from secure_server.audit.loggers import Loggers
from secure_server.auth.authenticators import Authenticators
from secure_server.auth.keys import FindKey
from secure_server.authz import Policy
from secure_server.config import Config
from secure_server.guard.certificates import Certificates
from secure_server.guard.chain import build_chain
from secure_server.guard.policy_file import PolicyFile
from secure_server.guard.refusal_log import AuditCallback, AuditEvent
from secure_server.guard.tls_set import TLSSet
from secure_server.limits import Limits


@dataclass(frozen=True, slots=True)
class GuardParts:
    """What a guard is made of. ``Guard(...)`` takes ``tls``, ``policy``, ``authenticators``, which
    it closes, and ``limits``; the owner of the parts closes ``policy_file``.
    """

    certificates: Certificates
    policy: Policy | Watched[Policy]
    policy_file: PolicyFile | None
    """What ``policy`` comes from; None for one that comes with the server."""
    authenticators: Authenticators
    limits: Limits

    @property
    def tls(self) -> Watched[TLSSet]:
        """The files of ``[tls]``, as they are now."""
        return self.certificates.watched

    def telling(self, audit: AuditCallback) -> AuditCallback:
        """Return a callback that calls the policy's audit loggers, and then ``audit``."""
        file = self.policy_file
        return audit if file is None else _telling(file.loggers, audit)

    def follow(self) -> None:
        """Reload the files when they change, once ``reloads`` is started."""
        reloads = self.authenticators.reloads
        reloads.follow(self.certificates)
        if self.policy_file is not None:
            reloads.follow(self.policy_file)


def open_parts(
    config: Config,
    *,
    clock: Callable[[], float],
    policy: Policy | None = None,
    accept: Callable[[Policy], None] = lambda _: None,
    find_key: FindKey | None = None,
) -> GuardParts:
    """Open the parts, for ``Guard.from_config`` and the identity service alike.

    ``policy`` is used where the configuration names no file; ``accept`` raises for a file's policy
    that parses but is not acceptable. ``find_key`` finds the keys of our own tokens; without it
    they come from ``[tokens] key_set``. ``guard.check`` reads the same parts in the same order.
    Raises the errors of ``secure_server.mistakes``.
    """
    with ExitStack() as undo:
        file = None
        used: Policy | Watched[Policy] | None = policy
        if config.policy.file is not None:
            file = PolicyFile(config.policy.file, accept=accept)
            undo.callback(file.close)
            used = file.watched
        assert used is not None
        authenticators = build_chain(config, clock=clock, find_key=find_key)
        undo.callback(authenticators.close)
        # Last, because it logs warnings: a start that fails prints only its error.
        certificates = Certificates(config.tls, clock)
        undo.pop_all()
    return GuardParts(certificates, used, file, authenticators, config.server.limits)


def _telling(loggers: Loggers, audit: AuditCallback) -> AuditCallback:
    def tell(event: AuditEvent) -> None:
        loggers.write(event)
        audit(event)

    return tell
