"""Checks a configuration as a start would, without opening anything for writing.

Each part is read by the function that reads it at a start, in the order of ``guard.parts``: a start
would end with the first failure here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from secure_server.auth.authenticators import Authenticator
from secure_server.auth.errors import AuthenticatorError
from secure_server.auth.keys import FindKey
from secure_server.authz import Policy
from secure_server.config import Config
from secure_server.guard.certificates import read_tls
from secure_server.guard.chain import build_chain
from secure_server.guard.policy_file import look_at_policy
from secure_server.mistakes import mistakes
from secure_tls.errors import RevocationListError, TLSError
from secure_tls.files import TLSFiles

_DAY = 86400


class CheckState(StrEnum):
    """The state of a part: with a failure the server does not start, with a warning it does."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """The result for one part."""

    about: str
    state: CheckState
    text: str


def check_guard(config: Config) -> Iterator[CheckFinding]:
    """Check what ``Guard.from_config`` would open, and ask the issuers."""
    yield from look_at_parts(config)


def look_at_parts(
    config: Config,
    *,
    policy: Policy | None = None,
    accept: Callable[[Policy], None] = lambda _: None,
    find_key: FindKey | None = None,
) -> Iterator[CheckFinding]:
    """Check what ``open_parts`` would open with the same arguments."""
    yield look_at("policy", lambda: _look_at_policy(config, policy, accept))
    yield from _look_at_authenticators(config, find_key)
    yield from _look_at_tls(config)


def look_at(about: str, look: Callable[[], str]) -> CheckFinding:
    """Check a part: ``look`` describes it or raises one of ``mistakes``."""
    try:
        return CheckFinding(about, CheckState.OK, look())
    except mistakes() as error:
        return CheckFinding(about, CheckState.FAIL, str(error))


def _look_at_policy(config: Config, policy: Policy | None, accept: Callable[[Policy], None]) -> str:
    if config.policy.file is not None:
        policy = look_at_policy(config.policy.file, accept=accept)
    assert policy is not None
    return f"{policy.name!r}; `secure-server policy check` says more"


def _look_at_tls(config: Config) -> Iterator[CheckFinding]:
    now = time.time()
    try:
        found = read_tls(config.tls, now=now)
    except TLSError as error:
        about = "revocation list" if isinstance(error, RevocationListError) else "certificate"
        yield CheckFinding(about, CheckState.FAIL, str(error))
        return
    yield CheckFinding("certificate", CheckState.OK, _leaf(found.files))
    if found.problems:
        yield CheckFinding("trust", CheckState.WARN, " ".join(found.problems))
    if (revoked := found.trust.revoked) is not None:
        warnings = revoked.warnings(now)
        state = CheckState.WARN if warnings else CheckState.OK
        yield CheckFinding("revocation list", state, " ".join(warnings) or "fresh")


def _leaf(files: TLSFiles) -> str:
    end = files.leaf.not_valid_after_utc
    days = int((end.timestamp() - time.time()) // _DAY)
    return f"good until {end:%Y-%m-%d %H:%M} UTC, {days} days from now"


def _look_at_authenticators(config: Config, find_key: FindKey | None) -> Iterator[CheckFinding]:
    try:
        chain = build_chain(config, clock=time.time, find_key=find_key)
    except mistakes() as error:
        yield CheckFinding("authenticators", CheckState.FAIL, str(error))
        return
    try:
        for member in chain.members:
            yield _ask(member)
    finally:
        chain.close()


def _ask(member: Authenticator) -> CheckFinding:
    """Ask an authenticator what it accepts. A failure is a warning: no start waits for it."""
    about = f"authenticator {member.name}"
    say = getattr(member, "check", None)
    try:
        text = say() if say else "; ".join(map(str, member.matchers))
    except AuthenticatorError as error:
        return CheckFinding(about, CheckState.WARN, str(error))
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything, and a start would not ask
        # Without the message: it may hold a secret.
        return CheckFinding(about, CheckState.WARN, f"its check failed: {type(error).__name__}.")
    return CheckFinding(about, CheckState.OK, text)
