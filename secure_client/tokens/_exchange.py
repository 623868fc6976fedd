"""One call of the token service, over a channel without call credentials."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_client._endpoint import Endpoint
from secure_client._identity import Identity
from secure_client.errors import CallError, ClientError, ConfigurationError, TokenUnavailableError
from secure_client.tokens.renewing import Fetched
from secure_client.tokens.source import AccessToken
from secure_tls import TLSError

if TYPE_CHECKING:
    from secure_api.tokens.v1.token_service_pb2 import Tokens
    from secure_client.connection_settings import ConnectionSettings

# Returns the identity to ask with, read when it is needed.
Asker: TypeAlias = Callable[[], Identity]

# Seconds; all callers may be waiting.
_DEADLINE = 10.0

# The server has decided: the same request gets the same answer.
FINAL = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


def identity_of(connection: ConnectionSettings) -> Identity:
    """Read the connection's files. Raises ``TLSError`` and ``ConfigurationError``."""
    return Endpoint(
        connection.target,
        ca=connection.ca,
        certificate=connection.certificate,
        private_key=connection.private_key,
        server_name=connection.server_name,
    ).read()


def exchange(identity: Asker, method: str, request: Callable[[], Any]) -> Tokens:
    """Send what ``request`` builds, as ``identity``, and return the answer.

    The request is built inside the call and the failure raised outside of it, so that no traceback
    holds a secret. Raises ``CallError``, and ``TokenUnavailableError`` for files that gRPC must not
    get.
    """
    failure: ClientError
    try:
        with identity().open() as channel:
            answer: Tokens = getattr(TokenServiceStub(channel), method)(
                request(), timeout=_DEADLINE
            )
            return answer
    except grpc.RpcError as error:
        failure = CallError.of(error)
    except (TLSError, ConfigurationError) as error:
        # Its text has paths and dates, no contents.
        failure = TokenUnavailableError(str(error))
    raise failure


def fetched(tokens: Tokens, wall: float) -> Fetched:
    """The access token in an answer that came at ``wall``, seconds since the epoch."""
    expires_at = tokens.access_token_expire_time.ToNanoseconds() / 1e9
    token = AccessToken(tokens.access_token, expires_at)
    return Fetched(token, max(lifetime(token, expires_at - wall), 0.0))


def lifetime(token: AccessToken, otherwise: float) -> float:
    """The seconds from a token's issue to its expiry by its claims, else ``otherwise``.

    ``exp`` - ``iat`` (RFC 9068, section 2.2) are both by the issuer's clock: an error of this
    machine's clock does not matter.
    """
    claims = token.claims()
    try:
        return float(claims["exp"]) - float(claims["iat"])
    except (KeyError, TypeError, ValueError):
        return otherwise


def is_bound_elsewhere(token: AccessToken, identity: Asker) -> bool:
    """Whether the token is bound to another certificate than that of ``identity``."""
    if "cnf" not in token.claims():
        return False
    try:
        return identity().is_foreign(token)
    except (TLSError, ConfigurationError):
        return False
