"""The guard (group G): what it refuses and what it never does, for each of the four kinds of RPC.

Each test runs on both of grpcio's stacks, and on asyncio for each style of servicer.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from secure_server.auth import AuthenticatorUnavailable, Credentials, Principal
from secure_server.auth.matchers import Prefix
from secure_server.guard import current_caller, current_principal
from support.door import Door, ask, open_door, silence, wait_until
from support.probe import KINDS, STYLES

UA, PD = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture(scope="module", params=STYLES)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Door]:
    with open_door(tmp_path_factory.mktemp("door"), style=request.param) as door:
        yield door


@pytest.fixture
def door(shared: Door) -> Door:
    shared.probe.reset()
    shared.events.clear()
    return shared


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def assert_refused(door: Door, answered: Any, code: grpc.StatusCode) -> None:
    assert answered.code is code, answered
    assert answered.responses == []
    assert door.probe.parsed == [], "a refused caller's bytes were parsed"
    assert door.probe.callers == [], "the handler ran"


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_token_is_served_and_the_handler_knows_the_caller(door: Door, kind: str) -> None:
    answered = ask(door.channel(), kind, f"Bearer {door.token()}")
    assert (answered.code, answered.responses) == (grpc.StatusCode.OK, [b"hello"])
    (caller,) = door.probe.callers
    assert caller.principal.subject == "users/admin"
    assert caller.principal.roles == {"admin"}
    assert caller.peer.spiffe_id == "spiffe://example.org/client/admin"


@pytest.mark.parametrize("kind", KINDS)
def test_G1_no_credential_where_policy_denies_the_anonymous(door: Door, kind: str) -> None:
    assert_refused(door, ask(door.channel(), kind), UA)


@pytest.mark.parametrize("kind", KINDS)
def test_no_credential_is_served_where_policy_allows_the_anonymous(door: Door, kind: str) -> None:
    answered = ask(door.channel(), kind, service="probe.Open")
    assert answered.code is grpc.StatusCode.OK
    assert door.probe.callers[0].principal.is_anonymous


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_credential_is_refused_even_where_the_anonymous_would_be_served(
    door: Door, kind: str
) -> None:
    assert_refused(door, ask(door.channel(), kind, "Bearer nonsense", service="probe.Open"), UA)


def test_G1_wholly_empty_metadata_is_refused_whatever_policy_says(door: Door) -> None:
    """After an overrun limit gRPC passes no metadata at all; such a call is anonymous."""
    transport = {
        "transport_security_type": [b"ssl"],
        "ssl_tls_version": [b"TLSv1.3"],
        "x509_pem_cert": [door.client.certificate_pem],
    }
    from secure_server.guard.call import Call
    from secure_server.guard.refusal import Answer, Refusal, RefusalReason

    agent = (("user-agent", "any"),)
    assert door.core.admit(Call("/probe.Open/unary_unary", agent, transport)).principal.is_anonymous
    with pytest.raises(Refusal) as refused:
        door.core.admit(Call("/probe.Open/unary_unary", (), transport))
    assert refused.value.reason is RefusalReason.NO_METADATA
    assert refused.value.reason.answer is Answer.CREDENTIALS_REFUSED
    assert refused.value.code == "no_metadata"


@pytest.mark.parametrize("kind", KINDS)
def test_G2_two_authorization_values(door: Door, kind: str) -> None:
    good = f"Bearer {door.token()}"
    answered = ask(door.channel(), kind, good, metadata=(("authorization", good),))
    assert_refused(door, answered, UA)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_G3_the_scheme_is_compared_without_case(door: Door, scheme: str) -> None:
    answered = ask(door.channel(), "unary_unary", f"{scheme} {door.token()}")
    assert answered.code is grpc.StatusCode.OK


@pytest.mark.parametrize(
    "form", ["Bearer  {}", "Bearer", "Bearer ", "{}", "Bearer {} ", "Bearer {} x", ""]
)
def test_G3_anything_but_one_space_is_refused(door: Door, form: str) -> None:
    token = door.token()
    answered = ask(door.channel(), "unary_unary", form.format(token))
    if form.endswith(" ") and token in form.format(token):
        # HTTP/2 peers may strip trailing white space before the server sees it.
        assert answered.code in {UA, grpc.StatusCode.OK}
        return
    assert_refused(door, answered, UA)


@pytest.mark.parametrize("kind", KINDS)
def test_G4_basic_credentials(door: Door, kind: str) -> None:
    assert_refused(door, ask(door.channel(), kind, "Basic YWRtaW46YWRtaW4="), UA)


def test_G5_an_unknown_method_answers_like_a_known_one(door: Door) -> None:
    known = ask(door.channel(), "unary_unary")
    unknown = ask(door.channel(), "unary_unary", path="/no.such.Service/Method")
    assert (unknown.code, unknown.details, unknown.trailers) == (
        known.code,
        known.details,
        known.trailers,
    )


def test_an_unknown_method_is_unimplemented_to_those_who_may_call_it(door: Door) -> None:
    answered = ask(door.channel(), "unary_unary", f"Bearer {door.token()}", path="/probe.Probe/no")
    assert answered.code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "path",
    [
        "probe.Probe/unary_unary",
        "//probe.Probe/unary_unary",
        "/probe.Probe/unary_unary/",
        "/probe.Probe/unary_unary?x",
        "/PROBE.PROBE/UNARY_UNARY",
        "/probe.Probe//unary_unary",
        "/x/../probe.Probe/unary_unary",
    ],
)
@pytest.mark.parametrize("authenticated", [False, True])
def test_G6_another_spelling_of_a_path_runs_no_handler(
    door: Door, path: str, authenticated: bool
) -> None:
    authorization = f"Bearer {door.token()}" if authenticated else None
    answered = ask(door.channel(), "unary_unary", authorization, path=path)
    assert answered.code in ({PD, grpc.StatusCode.UNIMPLEMENTED} if authenticated else {UA})
    assert door.probe.parsed == []
    assert door.probe.callers == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("authenticated", [False, True])
def test_G7_a_silent_caller_is_refused_at_once_and_nothing_is_parsed(
    door: Door, kind: str, authenticated: bool
) -> None:
    """Every method is called as a stream, so that even a unary caller can send no message."""
    authorization = f"Bearer {door.token(roles=['guest'])}" if authenticated else None
    with silence() as requests:
        answered = ask(
            door.channel(),
            "stream_stream",
            authorization,
            path=f"/probe.Probe/{kind}",
            requests=requests,
            timeout=5,
        )
    assert_refused(door, answered, PD if authenticated else UA)


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
def test_an_admitted_caller_who_keeps_silent_does_not_keep_a_thread(
    tmp_path: Path, style: str, kind: str
) -> None:
    with open_door(tmp_path, style=style, patience=0.2) as door, silence() as requests:
        answered = ask(
            door.channel(),
            "stream_stream",
            f"Bearer {door.token()}",
            path=f"/probe.Probe/{kind}",
            requests=requests,
            timeout=30,
        )
        assert answered.code is grpc.StatusCode.CANCELLED
        assert door.probe.callers == []


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
def test_a_call_without_its_message_is_unimplemented_as_grpc_defines(door: Door, kind: str) -> None:
    answered = ask(
        door.channel(),
        "stream_stream",
        f"Bearer {door.token()}",
        path=f"/probe.Probe/{kind}",
        messages=(),
    )
    assert answered.code is grpc.StatusCode.UNIMPLEMENTED
    assert door.probe.callers == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_that_does_not_parse_is_internal_and_leaks_nothing(
    door: Door, kind: str, log: list[dict[str, object]]
) -> None:
    answered = ask(door.channel(), kind, f"Bearer {door.token()}", messages=(b"unparsable",))
    assert answered.code is grpc.StatusCode.INTERNAL
    assert answered.details == "The request message could not be parsed."
    assert door.probe.callers == []
    assert log == [], "callers could fill the log"


class Raising:
    name = "raising"
    matchers = (Prefix("raise"),)

    def __init__(self, error: Exception) -> None:
        self.error = error

    def authenticate(self, credentials: Credentials | None, peer: object) -> Principal | None:
        raise self.error


@pytest.mark.parametrize("kind", KINDS)
def test_G9_an_authenticator_that_raises_fails_closed_and_is_audited(
    tmp_path: Path, style: str, kind: str
) -> None:
    with open_door(tmp_path, style=style, before=(Raising(RuntimeError("hunter2")),)) as door:
        answered = ask(door.channel(), kind, "Bearer raise")
        assert_refused(door, answered, grpc.StatusCode.INTERNAL)
        assert "hunter2" not in str(answered)
        (event,) = door.events
        assert not event.allowed
        assert event.code == "guard_failed"


def test_G9_a_policy_that_raises_fails_closed(tmp_path: Path, style: str) -> None:
    class Broken:
        name = "broken"

        def reads_headers(self, method: str) -> bool:
            raise RuntimeError("hunter2")

    with open_door(tmp_path, style=style) as door:
        door.policy.change(Broken())  # type: ignore[arg-type]
        answered = ask(door.channel(), "unary_unary", f"Bearer {door.token()}")
        assert_refused(door, answered, grpc.StatusCode.INTERNAL)
        assert "hunter2" not in str(answered)


@pytest.mark.parametrize("kind", KINDS)
def test_G19_a_deny_rule_sees_the_two_values_of_a_repeated_header_as_one(
    tmp_path: Path, style: str, kind: str
) -> None:
    """gRFC A43: joined by a comma, without a space."""
    policy = """{"name": "headers", "allow_rules": [{"name": "all"}], "deny_rules": [
      {"name": "both", "request": {"headers": [{"key": "x-of", "values": ["a,b"]}]}}]}"""
    with open_door(tmp_path, style=style, policy=policy) as door:
        channel, authorization = door.channel(), f"Bearer {door.token()}"
        for values, code in (
            (["a"], grpc.StatusCode.OK),
            (["a", "b"], PD),
            (["b", "a"], grpc.StatusCode.OK),
            (["a,b"], PD),
        ):
            metadata = tuple(("x-of", value) for value in values)
            assert ask(channel, kind, authorization, metadata=metadata).code is code, values


def test_an_authenticator_that_cannot_tell_now_is_unavailable(tmp_path: Path, style: str) -> None:
    cannot_tell = Raising(AuthenticatorUnavailable("network", "the issuer is down"))
    with open_door(tmp_path, style=style, before=(cannot_tell,)) as door:
        answered = ask(door.channel(), "unary_unary", "Bearer raise")
        assert_refused(door, answered, grpc.StatusCode.UNAVAILABLE)
        assert "issuer" not in str(answered)


@pytest.mark.parametrize("kind", KINDS)
def test_G13_no_identity_leaks_into_the_next_call(tmp_path: Path, style: str, kind: str) -> None:
    """Many callers, some anonymous, on few threads: each handler sees its own caller."""
    with open_door(tmp_path, style=style) as door:
        seen: list[tuple[bytes, str]] = []
        # All eight meet between the guard and the look: on threads and in tasks that change hands.
        threads, tasks = threading.Barrier(8, timeout=30), asyncio.Barrier(8)

        def look(request: bytes) -> bytes:
            seen.append((request, current_principal().subject))
            return request

        def behave(request: bytes, _context: Any) -> bytes:
            threads.wait()
            return look(request)

        async def behave_later(request: bytes, _context: Any) -> bytes:
            await tasks.wait()
            return await asyncio.create_task(_in_a_task(look, request))

        in_threads = style in {"threaded", "aio-plain"}
        door.probe.behave = behave if in_threads else behave_later
        channel = door.channel()
        tokens = [door.token(sub=f"users/u{number}") for number in range(7)]

        def one(number: int) -> None:
            who = number % 8
            authorization = None if who == 7 else f"Bearer {tokens[who]}"
            name = b"" if who == 7 else f"users/u{who}".encode()
            answered = ask(
                channel,
                kind,
                authorization,
                service="probe.Open",
                messages=(name or b"-",),
            )
            assert answered.code is grpc.StatusCode.OK, answered

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(one, range(160)))
        assert len(seen) == 160
        assert all((request.decode() if request != b"-" else "") == who for request, who in seen)


async def _in_a_task(function: Any, argument: Any) -> Any:
    return function(argument)


def test_outside_a_call_there_is_no_caller() -> None:
    with pytest.raises(LookupError, match="No guarded call is running here"):
        current_caller()


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_of_the_servicer_reaches_the_log_and_not_the_caller(
    door: Door, kind: str, log: list[dict[str, object]]
) -> None:
    def behave(_request: bytes, _context: Any) -> bytes:
        raise ValueError("hunter2")

    door.probe.behave = behave
    answered = ask(door.channel(), kind, f"Bearer {door.token()}")
    assert answered.code is grpc.StatusCode.INTERNAL
    assert "hunter2" not in str(answered)
    (line,) = [line for line in log if line["event"] == "a servicer raised"]
    assert "hunter2" in repr(line["exc_info"])
    assert line["method"] == f"/probe.Probe/{kind}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_servicers_abort_and_set_code_stay_as_they_are(door: Door, kind: str) -> None:
    def aborting(_request: bytes, context: Any) -> Any:
        context.set_trailing_metadata((("why", "because"),))
        return context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")

    door.probe.behave = aborting
    answered = ask(door.channel(), kind, f"Bearer {door.token()}")
    assert (answered.code, answered.details) == (grpc.StatusCode.NOT_FOUND, "no such thing")
    assert answered.trailers["why"] == "because"

    def as_generated_base_classes_do(_request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        context.set_details("Method not implemented!")
        raise NotImplementedError("hunter2")

    door.probe.behave = as_generated_base_classes_do
    answered = ask(door.channel(), kind, f"Bearer {door.token()}")
    assert answered.code is grpc.StatusCode.UNIMPLEMENTED
    assert answered.details == "Method not implemented!"


def test_full_stream_threads_refuse_one_more_at_once_and_unary_calls_go_on(
    tmp_path: Path, style: str
) -> None:
    with open_door(tmp_path, style=style, streams=2) as door:
        channel, authorization = door.channel(), f"Bearer {door.token()}"
        with ThreadPoolExecutor(2) as pool:
            with silence() as one, silence() as two:
                open_streams = [
                    pool.submit(ask, channel, "stream_stream", authorization, requests=requests)
                    for requests in (one, two)
                ]
                wait_until(lambda: door.stack.open_streams == 2)
                third = ask(channel, "unary_stream", authorization, timeout=5)
                assert third.code is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert ask(channel, "unary_unary", authorization).code is grpc.StatusCode.OK
                assert ask(channel, "stream_stream").code is UA, "a full pool hid a refusal"
            assert all(stream.result().code is grpc.StatusCode.OK for stream in open_streams)
        wait_until(lambda: door.stack.open_streams == 0)
        assert ask(channel, "unary_stream", authorization).code is grpc.StatusCode.OK


def test_the_handlers_generator_is_closed_when_its_caller_hangs_up(door: Door) -> None:
    closed = threading.Event()
    door.probe.others["/probe.Probe/endless"] = door.probe.endless(closed.set)
    metadata = (("authorization", f"Bearer {door.token()}"),)
    call = door.channel().unary_stream("/probe.Probe/endless")(b"", metadata=metadata)
    assert next(call) == b"more"
    call.cancel()
    assert closed.wait(10)


@pytest.mark.parametrize("kind", KINDS)
def test_every_call_is_counted_with_its_status(tmp_path: Path, style: str, kind: str) -> None:
    with open_door(tmp_path, style=style) as door:
        ask(door.channel(), kind, f"Bearer {door.token()}")
        ask(door.channel(), kind)
        ask(door.channel(), "unary_unary", path="/made/up")
        wait_until(lambda: len(door.ended) == 3)
        method = f"/probe.Probe/{kind}"
        assert sorted(door.ended) == sorted(
            [(method, "OK"), (method, "UNAUTHENTICATED"), ("unknown", "UNAUTHENTICATED")]
        )
