"""The audit event: one decision about one call."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from secure_server.auth.principal import ANONYMOUS, Principal
from secure_tls.peer import Peer


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One decision about one call.

    ``policy`` is the name of the policy that decided, and ``rule`` that of its rule; both are empty
    for a call that was refused before the policy decided, for its credentials for example. ``code``
    and ``detail`` are the true reason of a refusal, which the caller never learns; ``unverified``
    has the claims of refused credentials. ``time`` is in seconds since the epoch. No field contains
    a credential.
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
