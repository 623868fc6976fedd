"""The parts of a guard that a configuration describes, opened."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from secure_server.audit.loggers import Loggers
from secure_server.auth.authenticators import Authenticators
from secure_server.auth.keys import FindKey
from secure_server.authz import Policy
from secure_server.config import Config
from secure_server.guard.certificates import Certificates
from secure_server.guard.chain import build_chain
from secure_server.guard.policy_file import PolicyFile
from secure_server.guard.refusal_log import AuditCallback, AuditEvent
from secure_server.limits import Limits


@dataclass(frozen=True, slots=True)
class GuardParts:
    """The arguments of ``Guard(...)``, by the same names. The guard closes ``authenticators``; the
    owner of the others closes them.
    """

    tls: Certificates
    policy: Policy | PolicyFile
    authenticators: Authenticators
    limits: Limits

    @property
    def policy_file(self) -> PolicyFile | None:
        """The policy, where it comes from a file."""
        return self.policy if isinstance(self.policy, PolicyFile) else None

    def telling(self, audit: AuditCallback) -> AuditCallback:
        """Return a callback that calls the policy's audit loggers, and then ``audit``."""
        file = self.policy_file
        return audit if file is None else _telling(file.loggers, audit)

    def follow(self) -> None:
        """Reload the files when they change, once ``reloads`` is started."""
        reloads = self.authenticators.reloads
        reloads.follow(self.tls)
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
        used: Policy | PolicyFile
        if config.policy.file is not None:
            used = PolicyFile(config.policy.file, accept=accept)
            undo.callback(used.close)
        else:
            assert policy is not None
            used = policy
        authenticators = build_chain(config, clock=clock, find_key=find_key)
        undo.callback(authenticators.close)
        # Last, because it logs warnings: a start that fails prints only its error.
        tls = Certificates(config.tls, clock)
        undo.pop_all()
    return GuardParts(tls, used, authenticators, config.server.limits)


def _telling(loggers: Loggers, audit: AuditCallback) -> AuditCallback:
    def tell(event: AuditEvent) -> None:
        loggers.write(event)
        audit(event)

    return tell
