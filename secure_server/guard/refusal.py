"""How the guard says no: little to the caller, everything to audit."""

from __future__ import annotations

from enum import Enum


class Answer(Enum):
    """What a refused caller is told: status, text and ``google.rpc.ErrorInfo`` reason.

    One text for each status: which rule was broken would help none but an attacker.
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
        """The ``ErrorInfo`` reason, where there is one that a caller may see."""
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


class Refusal(Exception):  # noqa: N818 - a refusal is the door's work, no error
    """A call is refused.

    ``code`` says why in a word, for audit and metrics; ``detail`` in a sentence, for audit;
    ``unverified`` is what refused credentials claim. ``policy`` and ``rule`` name what decided,
    where a policy did.
    """

    def __init__(
        self,
        answer: Answer,
        code: str,
        detail: str = "",
        unverified: dict[str, str] | None = None,
        *,
        policy: str = "",
        rule: str = "",
    ) -> None:
        super().__init__(detail or answer.text)
        self.answer = answer
        self.code = code
        self.detail = detail
        self.unverified = unverified or {}
        self.policy = policy
        self.rule = rule
