"""One call, with what gRPC knows about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from secure_server.authz.headers import Metadata
from secure_server.guard.refusal import Refusal, RefusalReason
from secure_server.limits import MAX_METADATA_BYTES

Transport = Mapping[str, Sequence[bytes]]


class Call(NamedTuple):
    """A call before the decision: no message of it has been read.

    ``method`` is the path as received (``/package.Service/Method``), ``metadata`` the client's
    metadata, ``transport`` gRPC's ``auth_context``. ``method_exists`` says whether the server has a
    handler for the method.
    """

    method: str
    metadata: Metadata
    transport: Transport
    method_exists: bool = True


def credential_of(metadata: Metadata) -> str | None:
    """Return the value of ``authorization``, None where there is none.

    Raises ``Refusal`` for metadata that is too large or has no ``user-agent``, and for a value that
    is repeated or not text.
    """
    credential: str | bytes | None = None
    has_user_agent = False
    size = 0
    for name, value in metadata:
        size += len(name) + len(value) + 32
        if name == "authorization":
            if credential is not None:
                raise Refusal(RefusalReason.AUTHORIZATION, "More than one authorization value.")
            credential = value
        elif name == "user-agent":
            has_user_agent = True
    if size > MAX_METADATA_BYTES:
        raise Refusal(RefusalReason.METADATA_SIZE, f"{size} bytes of metadata.")
    if not has_user_agent:
        # Every gRPC client sends one. When metadata exceeds a limit, gRPC passes none at all.
        raise Refusal(RefusalReason.NO_METADATA, "Not even a user-agent was sent.")
    if isinstance(credential, bytes):
        raise Refusal(RefusalReason.AUTHORIZATION, "Not a text.")
    return credential
