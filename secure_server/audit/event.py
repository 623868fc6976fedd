"""What is written down of a decision."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from secure_server.auth.principal import ANONYMOUS, Principal
from secure_tls.peer import Peer


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One decision about one call.

    ``policy`` names the policy that decided, and ``rule`` its rule; a call that was refused before
    a policy was asked, for its credentials say, has neither. ``code`` and ``detail`` hold the true
    reason of a refusal, which the caller never learns; ``unverified`` what refused credentials
    claim of themselves. ``time`` is in seconds since the epoch. No field holds a credential.
    """

    method: str
    allowed: bool
    rule: str = ""
    peer: Peer | None = None
    principal: Principal = ANONYMOUS
    code: str = ""
    detail: str = ""
    unverified: dict[str, str] = field(default_factory=dict)
    policy: str = ""
    time: float = field(default_factory=time.time)
