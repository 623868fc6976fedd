"""``secure-server check``: everything that a start would look at, and what an issuer says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from secure_server.auth.errors import AuthenticatorError
from secure_server.auth.keys import FindKey
from secure_server.authz import Policy, PolicyError
from secure_server.config import Config, ConfigError
from secure_server.guard.certificates import read_tls
from secure_server.guard.chain import build_chain
from secure_server.guard.policy_file import read_policy
from secure_server.server import ServerError, check_every_method_has_a_rule, shipped_policy
from secure_server.tokens.key_file import KeyFile
from secure_server.tokens.signing_key import SigningKeyError
from secure_tls.errors import RevocationListError, TLSError
from secure_tls.files import TLSFiles

_MISTAKES = (
    AuthenticatorError,
    ConfigError,
    PolicyError,
    ServerError,
    SigningKeyError,
    TLSError,
)
_DAY = 86400


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """What came of looking at one thing."""

    about: str
    good: bool
    text: str


def look_through(config: Config) -> Iterator[CheckFinding]:
    """Look at what a configuration names, and change nothing."""
    yield _finding("policy", lambda: _policy(config))
    yield from _tls(config)
    yield from _authenticators(config)


def _finding(about: str, look: Callable[[], str]) -> CheckFinding:
    try:
        return CheckFinding(about, good=True, text=look())
    except _MISTAKES as error:
        return CheckFinding(about, good=False, text=str(error))


def _policy(config: Config) -> str:
    """A guard of one's own takes the keys of our tokens from a file; its methods are not known."""
    policy = shipped_policy() if config.policy.file is None else read_policy(config.policy.file)
    if config.tokens.key_set is None:
        check_every_method_has_a_rule(policy)
    return _described(policy)


def _described(policy: Policy) -> str:
    return f"{policy.name!r}; `secure-server policy check` says more"


def _tls(config: Config) -> Iterator[CheckFinding]:
    now = time.time()
    try:
        found = read_tls(config.tls, now=now)
    except RevocationListError as error:
        yield CheckFinding("revocation list", good=False, text=str(error))
        return
    except TLSError as error:
        yield CheckFinding("certificate", good=False, text=str(error))
        return
    yield CheckFinding("certificate", good=True, text=_leaf(found.files))
    # What a start would only warn of, so it is good.
    if found.problems:
        yield CheckFinding("trust", good=True, text=" ".join(found.problems))
    if (revoked := found.trust.revoked) is not None:
        yield CheckFinding(
            "revocation list", good=True, text=" ".join(revoked.warnings(now)) or "fresh"
        )


def _leaf(files: TLSFiles) -> str:
    end = files.leaf.not_valid_after_utc
    days = int((end.timestamp() - time.time()) // _DAY)
    return f"good until {end:%Y-%m-%d %H:%M} UTC, {days} days from now"


def _authenticators(config: Config) -> Iterator[CheckFinding]:
    try:
        chain = build_chain(config, clock=time.time, find_key=_own_keys(config))
    except _MISTAKES as error:
        yield CheckFinding("authenticators", good=False, text=str(error))
        return
    try:
        for member in chain.members:
            about = f"authenticator {member.name}"
            say = getattr(member, "check", None)
            claims = "; ".join(str(matcher) for matcher in member.matchers)
            yield _finding(about, say or (lambda claims=claims: claims))
    finally:
        chain.close()


def _own_keys(config: Config) -> FindKey | None:
    if config.tokens.key_set is not None:
        return None
    tokens = config.tokens
    if not tokens.signing_key.exists():
        return lambda _key_id: None  # a start makes the key; looking does not
    file = KeyFile(tokens.signing_key, tokens.signing_key_passphrase_file)
    return file.read(time.time()).keys.get
