"""Refusals: the caller is told little, audit everything."""

from __future__ import annotations

from enum import Enum

from secure_server.auth.principal import ANONYMOUS, Principal
from secure_tls.peer import Peer


class Answer(Enum):
    """The answer to a refused caller: status, text and ``google.rpc.ErrorInfo`` reason.

    It never says which rule was broken: that would help only an attacker.
    """

    CREDENTIALS_REFUSED = ("UNAUTHENTICATED", "The credentials of this call were refused.")
    NOT_ALLOWED = ("PERMISSION_DENIED", "The caller may not call this method.")
    SESSION_ENDED = ("UNAUTHENTICATED", "What this stream was opened with has ended: log in again.")
    POLICY_CHANGED = ("PERMISSION_DENIED", "The caller may not call this method any longer.")
    OVERLOADED = ("RESOURCE_EXHAUSTED", "Too much at once: try again later.")
    TOO_LARGE = ("RESOURCE_EXHAUSTED", "The metadata of this call is too large.")
    SERVER_ROTATING = ("UNAVAILABLE", "The server is going away: connect again.")
    UNAVAILABLE = ("UNAVAILABLE", "The credentials cannot be verified now: try again later.")
    FAILED = ("INTERNAL", "The call could not be decided about; the server's log says more.")

    def __init__(self, status: str, text: str) -> None:
        self.status = status
        self.text = text

    @property
    def reason(self) -> str | None:
        """The ``ErrorInfo`` reason, where callers may see one."""
        return self.name if self in _WITH_REASON else None


_WITH_REASON = frozenset(
    {
        Answer.CREDENTIALS_REFUSED,
        Answer.NOT_ALLOWED,
        Answer.SESSION_ENDED,
        Answer.POLICY_CHANGED,
        Answer.OVERLOADED,
        Answer.SERVER_ROTATING,
    }
)


class RefusalReason(Enum):
    """Why a call is refused: the word for audit and metrics, and the answer to its caller.

    ``ending`` is the answer to an open stream for which the guard finds this reason later; None
    where the reason says nothing about the caller, so that the stream stays open.
    """

    AUTHORIZATION = ("authorization", Answer.CREDENTIALS_REFUSED, Answer.SESSION_ENDED)
    NO_METADATA = ("no_metadata", Answer.CREDENTIALS_REFUSED, Answer.SESSION_ENDED)
    METADATA_SIZE = ("metadata_size", Answer.TOO_LARGE, None)
    PLAINTEXT = ("plaintext", Answer.CREDENTIALS_REFUSED, Answer.SESSION_ENDED)
    TLS_VERSION = ("tls_version", Answer.CREDENTIALS_REFUSED, Answer.SESSION_ENDED)
    CERTIFICATE = ("certificate", Answer.CREDENTIALS_REFUSED, Answer.SESSION_ENDED)
    """The client certificate or its path; the code is that of ``secure_tls.Verdict``."""
    CREDENTIALS = ("credentials", Answer.CREDENTIALS_REFUSED, Answer.SESSION_ENDED)
    """The authenticator's verdict; the code is that of its ``AuthenticationError``."""
    EXPIRED = ("expired", Answer.CREDENTIALS_REFUSED, Answer.SESSION_ENDED)
    REVOKED = ("revoked", Answer.CREDENTIALS_REFUSED, Answer.SESSION_ENDED)
    ANONYMOUS_DENIED = ("anonymous_denied", Answer.CREDENTIALS_REFUSED, Answer.POLICY_CHANGED)
    POLICY = ("policy", Answer.NOT_ALLOWED, Answer.POLICY_CHANGED)
    SILENT = ("silent", Answer.OVERLOADED, None)
    UNVERIFIABLE = ("unverifiable", Answer.UNAVAILABLE, None)
    """The authenticator cannot tell now; the code is that of ``AuthenticatorUnavailable``."""
    REVOCATIONS_STALE = ("revocations_stale", Answer.UNAVAILABLE, Answer.UNAVAILABLE)
    GUARD_FAILED = ("guard_failed", Answer.FAILED, None)

    def __init__(self, code: str, answer: Answer, ending: Answer | None) -> None:
        self.code = code
        self.answer = answer
        self.ending = ending


class Refusal(Exception):  # noqa: N818 - to refuse is the guard's work, no error
    """A call is refused, for a ``reason``.

    ``code`` is the reason in a word, for audit and metrics; ``detail`` a sentence, for audit;
    ``unverified`` the claims of refused credentials. ``peer`` and ``principal`` are set if the
    guard had established them; ``policy`` and ``rule`` name what decided, where a policy did.
    """

    def __init__(
        self,
        reason: RefusalReason,
        detail: str = "",
        *,
        code: str = "",
        unverified: dict[str, str] | None = None,
        peer: Peer | None = None,
        principal: Principal = ANONYMOUS,
        policy: str = "",
        rule: str = "",
    ) -> None:
        super().__init__(detail or reason.answer.text)
        self.reason = reason
        self.detail = detail
        self.code = code or reason.code
        self.unverified = unverified or {}
        self.peer = peer
        self.principal = principal
        self.policy = policy
        self.rule = rule
