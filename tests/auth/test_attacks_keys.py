"""Keys and introspection (group K): a provider that is slow, wrong, hostile or gone."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from auth_door import STACKS, guarded, introspection, oidc

from secure_base.reloading import Fetched, RefreshSchedule, Reloaded
from secure_server import AuthenticatorError, AuthenticatorUnavailable
from secure_server.auth.bulkhead import Bulkhead
from secure_server.auth.cache_epoch import CacheEpoch
from secure_server.auth.discovery import key_set_url
from secure_server.auth.fetch import Fetcher, FetchError
from secure_server.auth.key_sets import KeySetError, parse_key_set
from secure_server.auth.key_source import FETCHED, KeySource
from secure_server.testing import Issuer, Provider, running_provider
from secure_server.testing.provider import DISCOVERY, KEYS, page
from secure_tls.authority import Authority
from support.door import wait_until

NOTHING: dict[str, Any] = {}
PATIENT = RefreshSchedule(refresh=3600, cooldown=10, max_stale=86400, patience=10)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Loads:
    """What a source loads, and how often it did."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.count = 0
        self.error: Exception | None = None
        self.before: Callable[[], object] = lambda: None

    def __call__(self, _last: Any) -> Any:
        self.count += 1
        self.before()
        if self.error is not None:
            raise self.error
        return self.issuer.key_set


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loads() -> Loads:
    return Loads(Issuer())


@pytest.fixture
def generation() -> CacheEpoch:
    return CacheEpoch()


@pytest.fixture
def source(loads: Loads, clock: Clock, generation: CacheEpoch) -> Iterator[KeySource[Any]]:
    reloaded: Reloaded[Any] = Reloaded(
        "keys issuer", loads, errors=(AuthenticatorError,), first=NOTHING
    )
    keys: Fetched[Any] = Fetched(reloaded, PATIENT, stale=NOTHING, clock=clock)
    source: KeySource[Any] = KeySource(
        keys,
        name="issuer",
        bulkhead=Bulkhead(500),
        cache_epoch=generation,
        close=keys.close,
    )
    yield source
    source.close()


def test_K1_random_key_ids_cost_one_fetch_a_cooldown(
    source: KeySource[Any], loads: Loads, clock: Clock
) -> None:
    source._keys.start()
    source.loaded()
    assert loads.count == 1
    for number in range(1000):
        assert source.find(f"random-{number}") is None
    assert loads.count == 2
    clock.now += PATIENT.cooldown - 0.1
    assert source.find("random") is None
    assert loads.count == 2
    clock.now += 0.2
    assert source.find("random") is None
    assert loads.count == 3
    assert source.find(loads.issuer.key_id) is not None


def test_K2_stale_keys_are_used_until_they_are_too_old(
    source: KeySource[Any], loads: Loads, clock: Clock, generation: CacheEpoch
) -> None:
    source._keys.start()
    source.loaded()
    loads.error = AuthenticatorError("down")
    clock.now += PATIENT.max_stale - 1
    assert source.find(loads.issuer.key_id) is not None
    with pytest.raises(AuthenticatorUnavailable, match="down"):
        source.find("new")
    assert source.find(loads.issuer.key_id) is not None, "a failure took a good key away"
    clock.now += PATIENT.cooldown
    assert generation.value == 0
    with pytest.raises(AuthenticatorUnavailable, match="down"):
        source.find(loads.issuer.key_id)
    assert generation.value > 0, "callers of these keys are still cached"
    loads.error = None
    clock.now += PATIENT.cooldown
    assert source.find(loads.issuer.key_id) is not None


def test_K3_keys_that_were_never_fetched_are_unavailable(
    source: KeySource[Any], loads: Loads, log: list[dict[str, Any]]
) -> None:
    loads.error = RuntimeError("a secret")
    source._keys.start()
    with pytest.raises(AuthenticatorUnavailable, match="RuntimeError"):
        source.find("any")
    with pytest.raises(AuthenticatorUnavailable) as unavailable:
        source.find("any")
    assert "secret" not in f"{unavailable.value}{log}"


def test_K4_a_hundred_first_calls_are_one_fetch(source: KeySource[Any], loads: Loads) -> None:
    loads.before = lambda: time.sleep(0.2)
    source._keys.start()
    with ThreadPoolExecutor(100) as pool:
        found = list(pool.map(lambda _: source.find(loads.issuer.key_id), range(100)))
    assert None not in found
    assert loads.count == 1


def test_K6_a_new_key_is_there_at_its_first_token_and_a_withdrawn_one_is_forgotten(
    source: KeySource[Any], loads: Loads, clock: Clock, generation: CacheEpoch
) -> None:
    source._keys.start()
    source.loaded()
    old = loads.issuer.key_id
    loads.issuer.rotate()
    assert source.find(loads.issuer.key_id) is not None
    assert source.find(old) is not None
    assert generation.value == 0, "a new key invalidates nothing"
    loads.issuer.rotate(keep_old=False)
    clock.now += PATIENT.cooldown
    assert source.find(loads.issuer.key_id) is not None
    assert source.find(old) is None
    assert generation.value == 1


@pytest.mark.parametrize("stack", STACKS)
def test_K1_K4_K6_at_the_door(provider: Provider, stack: str) -> None:
    """Through TLS and HTTP: one fetch for the first calls, a rotation is seen at once, and a caller
    admitted by a withdrawn key is refused.
    """
    issuer = provider.issuer
    with guarded(stack, oidc(provider)) as door, ThreadPoolExecutor(8) as pool:
        tokens = [issuer.token(None, subject=f"s{number}") for number in range(16)]
        answers = list(pool.map(lambda token: door.ask(f"Bearer {token}"), tokens))
        assert {status for status, _ in answers} == {"OK"}
        assert provider.requests.count(KEYS) == 1
        issuer.rotate()
        assert door.ask(f"Bearer {issuer.token(None)}")[0] == "OK"
        assert door.ask(f"Bearer {tokens[0]}")[0] == "OK"
        assert provider.requests.count(KEYS) == 2
        for _ in range(20):
            assert door.code(f"Bearer {issuer.token(None, defect='unknown_kid')}") == "kid"
        assert provider.requests.count(KEYS) == 2
        issuer.rotate(keep_old=False)
        keys = door.member("oidc")._source._keys
        keys._asked_at = float("-inf")  # the cooldown is over
        assert door.ask(f"Bearer {issuer.token(None)}")[0] == "OK"
        assert door.code(f"Bearer {tokens[0]}") == "kid", "its answer was cached"


@pytest.mark.parametrize("stack", STACKS)
def test_K3_an_issuer_that_is_down_is_unavailable_and_not_unauthenticated(
    provider: Provider, stack: str
) -> None:
    provider.fail()
    with guarded(stack, oidc(provider)) as door:
        token = f"Bearer {provider.issuer.token(None)}"
        assert door.ask(token) == (
            "UNAVAILABLE",
            "The credentials cannot be verified now: try again later.",
        )
        assert door.audit[-1].code == "keys"
        assert "503" in door.audit[-1].detail


@pytest.mark.parametrize("stack", STACKS)
def test_K2_an_outage_leaves_known_keys_as_they_are(provider: Provider, stack: str) -> None:
    with guarded(stack, oidc(provider)) as door:
        assert door.ask(f"Bearer {provider.issuer.token(None)}")[0] == "OK"
        provider.fail()
        for _ in range(20):
            assert door.ask(f"Bearer {provider.issuer.token(None)}")[0] == "OK"
        forged = provider.issuer.token(None, defect="foreign_key")
        assert door.ask(f"Bearer {forged}")[0] == "UNAUTHENTICATED"


def ten_megabytes() -> Any:
    return 200, {}, b" " * 10_000_000


def html() -> Any:
    return 200, {"Content-Type": "text/html"}, b"<html>Sign in</html>"


K5: dict[str, tuple[str, Callable[[Provider], Callable[[], Any]], str]] = {
    "a redirect": (KEYS, lambda p: lambda: (302, {"Location": p.url + "/other"}, b""), "redirect"),
    "10 MB": (KEYS, lambda _: ten_megabytes, "more than"),
    "HTML": (KEYS, lambda _: html, "not a JSON Web Key Set"),
    "http": (
        DISCOVERY,
        lambda p: lambda: page({"issuer": p.issuer.name, "jwks_uri": "http://localhost/keys"}),
        "is not https",
    ),
    "a file": (
        DISCOVERY,
        lambda p: lambda: page({"issuer": p.issuer.name, "jwks_uri": "file:///etc/passwd"}),
        "is not https",
    ),
    "no URL": (
        DISCOVERY,
        lambda p: lambda: page({"issuer": p.issuer.name, "jwks_uri": "https://localhost:99999/"}),
        "is not a URL",
    ),
    "no location": (DISCOVERY, lambda p: lambda: page({"issuer": p.issuer.name}), "no jwks_uri"),
    "another issuer": (
        DISCOVERY,
        lambda p: lambda: page({"issuer": p.issuer.name + "/", "jwks_uri": p.url + KEYS}),
        "must be the same",
    ),
    "a list": (DISCOVERY, lambda _: lambda: page([]), "not a JSON object"),
    "deep nesting": (KEYS, lambda _: lambda: (200, {}, b"[" * 100_000), "not a JSON Web Key Set"),
    "link-local": (
        DISCOVERY,
        lambda p: lambda: page({"issuer": p.issuer.name, "jwks_uri": "https://169.254.169.254/"}),
        "not a public address",
    ),
}


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("case", K5)
def test_K5_a_document_that_is_no_key_set_is_refused(
    provider: Provider, case: str, stack: str
) -> None:
    path, answer, reason = K5[case]
    provider.answers[path] = answer(provider)
    with guarded(stack, oidc(provider)) as door:
        assert door.ask(f"Bearer {provider.issuer.token(None)}")[0] == "UNAVAILABLE"
        assert reason in door.audit[-1].detail, door.audit[-1].detail


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:1/",
        "https://localhost:1/",
        "https://[::1]:1/",
        "https://10.0.0.1/",
        "https://192.168.1.1/",
        "https://100.64.0.1/",
        "https://[fd00::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/",
        "https://0.0.0.0/",
        "https://2130706433/",
    ],
)
def test_K5_a_private_address_is_not_contacted_unless_allowed(url: str) -> None:
    fetcher = Fetcher()
    with pytest.raises(FetchError, match="not a public address"):
        fetcher.get(url)
    fetcher.close()


@pytest.mark.parametrize("url", ["http://example.org/", "file:///etc/passwd", "ftp://x/", "x"])
def test_K5_only_https_is_asked(url: str) -> None:
    fetcher = Fetcher(allow_private_addresses=True)
    with pytest.raises(FetchError, match="is not https"):
        fetcher.get(url)
    fetcher.close()


def test_the_certificate_of_an_issuer_must_be_its_own(provider: Provider) -> None:
    stranger = Fetcher(allow_private_addresses=True)  # trusts the system's authorities
    with pytest.raises(FetchError, match=r"(?i)certificate"):
        key_set_url_or_fail(stranger, provider)
    stranger.close()
    with running_provider(authority=Authority.create("example.org")) as other:
        fetcher = Fetcher(ca=provider.ca_file, allow_private_addresses=True)
        with pytest.raises(FetchError, match=r"(?i)certificate"):
            key_set_url_or_fail(fetcher, other)
        fetcher.close()
    named = Fetcher(ca=provider.ca_file, allow_private_addresses=True)
    with pytest.raises(FetchError, match=r"(?i)hostname|mismatch"):
        named.get(provider.url.replace("localhost", "127.0.0.1") + KEYS)
    assert b"keys" in named.get(provider.url + KEYS)
    named.close()


def key_set_url_or_fail(fetcher: Fetcher, provider: Provider) -> None:
    try:
        key_set_url(fetcher, provider.url)
    except AuthenticatorError as error:
        raise FetchError(str(error)) from None


def jwk(**changes: Any) -> dict[str, Any]:
    key: dict[str, Any] = json.loads(Issuer().jwks())["keys"][0] | changes
    return {name: value for name, value in key.items() if value is not None}


def test_K7_keys_that_cannot_be_used_are_skipped_and_named() -> None:
    good = jwk()
    keys, skipped = parse_key_set(
        json.dumps(
            {
                "keys": [
                    good,
                    jwk(kid="enc", use="enc"),
                    jwk(kid="twice"),
                    jwk(kid="twice"),
                    jwk(kid="ops", key_ops=["sign"]),
                    jwk(kid="private", d="AAAA"),
                    jwk(kid="mac", kty="oct", k="AAAA"),
                    jwk(kid="other", alg="RS256"),
                    jwk(kid="curve", crv="P-384"),
                    jwk(kid="HS", alg="HS256"),
                    jwk(kid=None),
                    jwk(kid=7),
                    {"kty": "RSA", "kid": "small", "n": "AQAB", "e": "AQAB"},
                    "text",
                    None,
                ]
            }
        ).encode(),
        "there",
    )
    assert list(keys) == [good["kid"]]
    assert len(skipped) == 14
    for number, reason in enumerate(skipped, 2):
        assert reason.startswith(f"Key {number}, ")
        assert "AAAA" not in reason
    assert "another key has the same `kid`" in skipped[1]


@pytest.mark.parametrize("stack", STACKS)
def test_K7_usable_keys_still_work_and_the_log_names_the_skipped_ones(
    provider: Provider, stack: str, log: list[dict[str, Any]]
) -> None:
    own = json.loads(provider.issuer.jwks())["keys"]
    provider.answers[KEYS] = lambda: page({"keys": [*own, jwk(kid="enc", use="enc")]})
    with guarded(stack, oidc(provider)) as door:
        assert door.ask(f"Bearer {provider.issuer.token(None)}")[0] == "OK"
    (line,) = [line for line in log if line["event"] == "a key is skipped"]
    assert "'enc'" in str(line["reason"])


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [{}]}', b"\xff", b"1"]
)
def test_K7_a_set_without_a_key_is_none(text: bytes) -> None:
    with pytest.raises(KeySetError, match="there"):
        parse_key_set(text, "there")


@pytest.mark.parametrize("stack", STACKS)
class TestIntrospection:
    def test_K9_an_active_token_is_recognised_and_an_inactive_one_is_not(
        self, provider: Provider, tmp_path: Path, stack: str
    ) -> None:
        table = introspection(
            provider, tmp_path, roles_claim="groups", roles={"team-a-admins": "admin"}
        )
        token = provider.opaque("opaque-1", scope="read write", groups=["team-a-admins"])
        with guarded(stack, table) as door:
            assert door.ask(f"Bearer {token}") == ("OK", "introspection alice [admin] [read,write]")
            assert door.code("Bearer opaque-2") == "inactive"
            assert door.ask("Bearer opaque-2")[0] == "UNAUTHENTICATED"

    def test_K9_an_answer_is_cached_for_its_time_and_no_longer(
        self, provider: Provider, tmp_path: Path, stack: str
    ) -> None:
        clock = time.time()
        moment = [clock]
        issuer, ours = (Issuer(clock=lambda: moment[0]) for _ in range(2))
        with (
            running_provider(issuer=issuer) as provider,
            guarded(stack, introspection(provider, tmp_path, cache=30), issuer=ours) as door,
        ):
            token = provider.opaque("opaque", exp=int(clock) + 65)
            for _ in range(5):
                assert door.ask(f"Bearer {token}")[0] == "OK"
            assert len(provider.requests) == 1
            moment[0] += 29
            assert door.ask(f"Bearer {token}")[0] == "OK"
            assert len(provider.requests) == 1
            moment[0] += 2
            assert door.ask(f"Bearer {token}")[0] == "OK"
            assert len(provider.requests) == 2
            provider.revoke(token)
            moment[0] += 31
            assert door.code(f"Bearer {token}") == "inactive"
            provider.opaque("opaque", exp=int(clock) + 65)
            moment[0] = clock + 65 + 31
            assert door.code(f"Bearer {token}") == "expired", "no cache outlives exp"

    @pytest.mark.parametrize(
        ("members", "code"),
        [
            ({"active": "true"}, "introspection"),
            ({"active": 1}, "introspection"),
            ({"aud": "another"}, "aud"),
            ({"aud": None}, "aud"),
            ({"iss": "https://another"}, "iss"),
            ({"exp": "soon"}, "exp"),
            ({"exp": 1}, "expired"),
            ({"nbf": 2**39}, "clock"),
            ({"sub": 7}, "sub"),
            ({"scope": "a  b"}, "scope"),
            ({"cnf": {"x5t#S256": "of-another"}}, "cnf"),
            ({"cnf": {"jkt": "x"}}, "cnf"),
        ],
    )
    def test_K9_an_answer_that_is_wrong_is_a_refusal(
        self,
        provider: Provider,
        tmp_path: Path,
        stack: str,
        members: dict[str, Any],
        code: str,
    ) -> None:
        token = provider.opaque(f"wrong-{members}".replace(" ", ""), **members)
        with guarded(stack, introspection(provider, tmp_path)) as door:
            assert door.code(f"Bearer {token}") == code
            assert door.ask(f"Bearer {token}")[0] == "UNAUTHENTICATED"

    @pytest.mark.parametrize("body", [b"", b"[]", b"true", b"<html>", b"[" * 50_000, b"\xff"])
    def test_K9_nonsense_is_a_refusal(
        self, provider: Provider, tmp_path: Path, stack: str, body: bytes
    ) -> None:
        provider.answers["/introspect"] = lambda: (200, {}, body)
        with guarded(stack, introspection(provider, tmp_path)) as door:
            assert door.code("Bearer any") == "introspection"
            assert door.ask("Bearer any")[0] == "UNAUTHENTICATED"

    def test_K9_a_failing_endpoint_is_unavailable_and_soon_not_asked_any_more(
        self, provider: Provider, tmp_path: Path, stack: str
    ) -> None:
        token = provider.opaque("good")
        with guarded(stack, introspection(provider, tmp_path)) as door:
            for status in (500, 503, 401, 302):
                provider.fail(status)
                assert door.ask(f"Bearer other-{status}")[0] == "UNAVAILABLE"
            assert len(provider.requests) == 4
            for number in range(20):
                assert door.ask(f"Bearer another-{number}")[0] == "UNAVAILABLE"
            assert len(provider.requests) == 5, "the circuit is open after five in a row"
            assert "is down" in door.audit[-1].detail
        provider.recover()
        with guarded(stack, introspection(provider, tmp_path)) as door:
            assert door.ask(f"Bearer {token}")[0] == "OK"

    def test_one_token_from_many_at_once_is_asked_about_once(
        self, provider: Provider, tmp_path: Path, stack: str
    ) -> None:
        provider.delay = 0.2
        token = provider.opaque("many")
        with guarded(stack, introspection(provider, tmp_path)) as door:
            with ThreadPoolExecutor(12) as pool:
                answers = list(pool.map(lambda _: door.ask(f"Bearer {token}")[0], range(12)))
            assert set(answers) == {"OK"}
            assert len(provider.requests) == 1

    def test_a_bound_opaque_token_is_good_over_its_own_certificate_only(
        self, provider: Provider, tmp_path: Path, stack: str
    ) -> None:
        with guarded(stack, introspection(provider, tmp_path)) as door:
            thumbprint = door.thumbprint("alice")
            token = provider.opaque("bound", cnf={"x5t#S256": thumbprint})
            assert door.ask(f"Bearer {token}", "alice")[0] == "OK"
            assert door.code(f"Bearer {token}", "bob") == "cnf"

    def test_K10_no_cache_holds_a_token(
        self, provider: Provider, tmp_path: Path, stack: str, log: list[dict[str, Any]]
    ) -> None:
        token = provider.opaque("a-very-secret-opaque-token")
        with guarded(stack, introspection(provider, tmp_path)) as door:
            assert door.ask(f"Bearer {token}")[0] == "OK"
            assert door.ask(f"Bearer {token}x")[0] == "UNAUTHENTICATED"
            asker = door.member("introspection")
            core = door.core()
            callers = core._recognition._callers._entries
            held = f"{asker._answers._entries}{callers}{core.__dict__}{log}"
            assert token not in held
            assert token not in f"{door.audit}"
            assert provider.client_secret not in f"{asker!r}{held}{door.audit}"


@pytest.mark.parametrize("stack", STACKS)
def test_G8_slow_authentications_get_their_share_of_threads_and_other_calls_are_served(
    provider: Provider, tmp_path: Path, stack: str
) -> None:
    """Half of the 32 threads may wait for the issuer; the others serve other calls."""
    tokens = [provider.opaque(f"slow-{number}") for number in range(40)]
    over = threading.Event()

    def late() -> Any:
        over.wait(20)
        return page({"active": False})

    provider.answers["/introspect"] = late
    with (
        guarded(stack, introspection(provider, tmp_path)) as door,
        ThreadPoolExecutor(40) as pool,
    ):
        known = f"Bearer {door.server.issuer.token(door.server.client('alice'))}"
        assert door.ask(known)[0] == "OK"
        waiting = [pool.submit(door.ask, f"Bearer {token}") for token in tokens]
        try:
            wait_until(lambda: sum(one.done() for one in waiting) == 24)
            wait_until(lambda: provider.requests.count("/introspect") == 16)
            for _ in range(10):
                assert door.ask(known, timeout=5)[0] == "OK"
            fresh = door.server.issuer.token(door.server.client("alice"))
            assert door.ask(f"Bearer {fresh}", timeout=5)[0] == "OK"
        finally:
            over.set()
        answers = [one.result()[0] for one in waiting]
        assert answers.count("UNAVAILABLE") == 24
        assert answers.count("UNAUTHENTICATED") == 16


def test_K8_a_withdrawn_key_verifies_no_token(
    source: KeySource[Any], loads: Loads, clock: Clock
) -> None:
    source._keys.start()
    source.loaded()
    old = loads.issuer.key_id
    loads.issuer.rotate(keep_old=False)
    source._keys._is_wanted = False
    clock.now += PATIENT.cooldown
    assert source.find("unknown") is None
    assert source.find(old) is None


def test_the_pace_of_fetching_is_what_the_documents_say() -> None:
    assert dataclasses.astuple(FETCHED) == (300, 10, 86400, 6)


def test_K6_the_first_tokens_of_a_new_key_wait_for_one_load(
    source: KeySource[Any], loads: Loads
) -> None:
    """Also tokens that come between the request for a load and its start."""
    source._keys.start()
    source.loaded()
    loads.issuer.rotate()
    with ThreadPoolExecutor(1) as pool:
        keys = source._keys
        with keys._changed:  # the wish is there, and the loader cannot begin
            keys._asked_at, keys._is_wanted = keys._clock(), True
            keys._changed.notify_all()
            second = pool.submit(source.find, loads.issuer.key_id)
        assert second.result(10) is not None
    assert loads.count == 2
