"""The parts of a guard that a configuration describes, opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from secure_server.auth.authenticators import Authenticator, Authenticators
from secure_server.auth.keys import FindKey
from secure_server.authz import Policy
from secure_server.config import Config
from secure_server.guard.certificates import Certificates
from secure_server.guard.chain import build_chain
from secure_server.guard.policy_file import PolicyFile
from secure_server.limits import Limits
from secure_server.sections import ServerSection


@dataclass(frozen=True, slots=True)
class GuardParts:
    """What ``Guard(...)`` takes, by the same names."""

    tls: Certificates
    policy: Policy | PolicyFile
    authenticators: Authenticators
    limits: Limits


def open_parts(
    config: Config,
    *,
    clock: Callable[[], float],
    policy: Policy | None = None,
    accept: Callable[[Policy], None] = lambda _: None,
    find_key: FindKey | None = None,
    others: Sequence[Authenticator] = (),
) -> GuardParts:
    """Open them, for ``Guard.from_config``, the identity service and the testing kit alike.

    ``policy`` is the one in force where the configuration names no file, and ``accept`` raises for
    one of a file that is no good though it parses. ``find_key`` has the keys of our own tokens;
    without it they are those of ``[tokens] key_set``. ``others`` are asked beside
    ``[[authenticators]]``. A guard that is made of the parts closes them.
    ``secure_server.guard.check`` looks at the same parts in the same order. Raises the errors of
    ``secure_server.mistakes``.
    """
    with ExitStack() as undo:
        used: Policy | PolicyFile
        if config.policy.file is not None:
            used = PolicyFile(config.policy.file, accept=accept)
            undo.callback(used.close)
        else:
            assert policy is not None
            used = policy
        authenticators = build_chain(config, clock=clock, find_key=find_key, others=others)
        undo.callback(authenticators.close)
        # The last, because it warns in the log: a start that fails says one thing.
        tls = Certificates(config.tls, clock)
        undo.pop_all()
    return GuardParts(tls, used, authenticators, limits_of(config.server))


def limits_of(server: ServerSection) -> Limits:
    """Return what a guard has room for by this configuration."""
    return Limits(
        door_threads=server.door_threads,
        stream_threads=server.stream_threads,
        max_message_bytes=server.max_message_bytes,
        retire=server.retire,
    )
