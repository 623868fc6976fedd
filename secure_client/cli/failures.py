"""What a failed call means, and what to do about it."""

import re

import grpc

from secure_base.terminal import escape
from secure_client.cli.output import complain
from secure_client.cli.probe import probe
from secure_client.cli.state import RunState
from secure_client.connection_settings import ConnectionSettings
from secure_client.errors import CallError, ClientError, NotLoggedInError, TokenError
from secure_tls import TLSError

# What gRPC and OpenSSL say about a failed connection, and what it means.
_CONNECTING = {
    "certificate has expired": (
        "The certificate of {target} has expired: its operator must renew it."
    ),
    "certificate is not yet valid": (
        "The certificate of {target} is not valid yet: check the clocks of both machines."
    ),
    "Hostname Verification|Hostname mismatch|IP address mismatch": (
        "The certificate of {target} is for another name: use the name that it was issued for, "
        "or, if you know that name and trust it, --server-name."
    ),
    "CERTIFICATE_VERIFY_FAILED": (
        "The certificate of {target} was not issued by the CA in {ca}: give the server's CA with "
        "--ca. If that is the right CA, another server is answering."
    ),
    "WRONG_VERSION_NUMBER": "{target} does not speak TLS: check the port.",
    "Connection refused": (
        "Nothing listens on {target}: is the server running (secure-server serve), and is this "
        "its port?"
    ),
    "DNS resolution|Name or service not known|errors resolving|No address associated": (
        "The host name in {target} is not known: check the spelling."
    ),
    "Socket closed|Connection reset|Broken pipe|End of TCP stream|ALERT": (
        "{target} closed the connection, as servers do {certificate}. Or it is no gRPC port."
    ),
    "Timeout|timed out|Failed to connect before the deadline|unreachable|No route": (
        "{target} cannot be reached: check host, port, and the firewalls between."
    ),
}

# gRPC's texts for a failed connection; any other UNAVAILABLE comes from the server.
_NOT_CONNECTED = re.compile(
    "all backends|all addresses|Socket closed|Connection reset|Broken pipe|End of TCP stream"
)

_MEANINGS = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "{target} did not answer in time. It may be overloaded or "
    "out of reach; whether it did what was asked is not known.",
    grpc.StatusCode.UNIMPLEMENTED: "{target} does not offer this call: is it a secure-grpc server?",
    grpc.StatusCode.CANCELLED: "{target} ended the call; try again.",
    grpc.StatusCode.PERMISSION_DENIED: "{target} does not allow this to {who}.",
}


def report(error: Exception, state: RunState) -> int:
    """Say what an error of the client means, and return the exit status; raise any other again."""
    match error:
        case CallError():
            complain(explain(error, state))
            return 1
        case TokenError():
            complain(str(error))
            if error.cause is not None and error.cause.code is grpc.StatusCode.UNAVAILABLE:
                complain(explain(error.cause, state))
            return 2 if isinstance(error, NotLoggedInError) else 1
        case ClientError() | TLSError():
            complain(str(error))
            return 2
    raise error


def explain(error: CallError, state: RunState) -> str:
    """Sentences for people: what went wrong, where, what to do next."""
    target = state.connection.target
    if error.code is grpc.StatusCode.UNAVAILABLE:
        return _unavailable(error, state)
    if error.code is grpc.StatusCode.UNAUTHENTICATED:
        return _unauthenticated(state)
    if error.code is grpc.StatusCode.OUT_OF_RANGE:
        return (
            f"{target} no longer keeps all changes since then: see how the users are now "
            "(secure-client users list), and watch without --resume."
        )
    meaning = _MEANINGS.get(error.code, "{target} answered {code}.")
    return meaning.format(target=target, who=_who(state), code=error.code.name) + _said(error)


def _unavailable(error: CallError, state: RunState) -> str:
    connection = state.connection
    details = error.details
    if _NOT_CONNECTED.search(details):
        details = probe(connection) or details
    for pattern, meaning in _CONNECTING.items():
        if re.search(pattern, details):
            return meaning.format(
                target=connection.target,
                ca=connection.ca,
                certificate=_for_want_of(connection),
            )
    return f"{connection.target} is not available now; try again later.{_said(error)}"


def _for_want_of(connection: ConnectionSettings) -> str:
    if connection.certificate is None:
        return "when there is no client certificate: give --certificate and --private-key"
    return (
        f"when they do not accept the client certificate, here {connection.certificate}: it may be "
        "of a CA that the server does not know, or revoked"
    )


def _unauthenticated(state: RunState) -> str:
    target = state.connection.target
    session = state.session()
    if session is not None:
        return (
            f"{target} did not accept the session of {session.user}: it has ended, or the client "
            f"certificate is not accepted. Run: secure-client login {session.user}"
        )
    return (
        f"{target} wants to know who is calling, and profile {state.profile.name!r} has no session "
        "there. Run: secure-client login USER"
    )


def _who(state: RunState) -> str:
    try:
        session = state.session()
    except ClientError:
        session = None
    return "this client certificate" if session is None else session.user


def _said(error: CallError) -> str:
    said = escape(error.details).strip()
    reason = f" [{escape(error.reason)}]" if error.reason else ""
    return f" The server says: {said}{reason}" if said else reason
