"""Errors as gRPC callers get them: a status, a text and ``google.rpc.ErrorInfo`` (AIP-193)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from secure_server.guard.refusal import Answer

DOMAIN = "secure-grpc"
"""The ``ErrorInfo`` domain of every reason that this project gives."""

CallEnded = Callable[[str, str], None]
"""Called with method and status of every ended call; the method is ``unknown`` if not served."""

Trailers = tuple[tuple[str, bytes], ...]

PARSE_FAILED = (grpc.StatusCode.INTERNAL, "The request message could not be parsed.")
"""The status that gRPC names for it ("Status codes and their use in gRPC")."""
NOT_ONE_MESSAGE = (grpc.StatusCode.UNIMPLEMENTED, "This method takes one request message.")
"""The same document's status for a request cardinality violation."""
FAILED = (grpc.StatusCode.INTERNAL, "The server failed; its log says why.")
"""For any exception of a servicer: its text is not for the caller."""
UNKNOWN_METHOD = (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

_DETAILS = "grpc-status-details-bin"  # where grpc_status looks


def trailers(
    code: grpc.StatusCode, text: str, reason: str, metadata: dict[str, str] | None = None
) -> Trailers:
    """Return the trailing metadata that carries a reason beside a status."""
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata or {})
    packed = any_pb2.Any()
    packed.Pack(info)
    number: int = code.value[0]
    status = status_pb2.Status(code=number, message=text, details=[packed])
    return ((_DETAILS, status.SerializeToString()),)


_STATUS: dict[Answer, grpc.StatusCode] = {
    answer: getattr(grpc.StatusCode, answer.status) for answer in Answer
}
_TRAILERS = {
    answer: trailers(_STATUS[answer], answer.text, answer.reason)
    for answer in Answer
    if answer.reason is not None
}


def answer_of(answer: Answer) -> tuple[grpc.StatusCode, str, Trailers]:
    """Return what a refused caller is told: status, text and trailing metadata."""
    return _STATUS[answer], answer.text, _TRAILERS.get(answer, ())


def code_of(context: Any) -> str:
    """Return the name of a call's status."""
    code = context.code()  # None where the servicer set none; an enum's ``name`` is slow to read
    return code.name if code else "OK"
