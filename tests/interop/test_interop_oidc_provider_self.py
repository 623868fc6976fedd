"""The certified provider that other tests rely on does what they take for granted."""

from __future__ import annotations

import base64
import time

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import hashes

from secure_tls.authority import Authority
from support.oidc_provider import missing, running_oidc_provider

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture(scope="module")
def authority():
    return Authority.create("example.org")


@pytest.fixture(scope="module")
def provider(tmp_path_factory, authority):
    with running_oidc_provider(tmp_path_factory.mktemp("oidc-provider"), authority) as found:
        yield found


def discovery(provider):
    with provider.connect() as client:
        return client.get("/.well-known/openid-configuration").raise_for_status().json()


def published(provider):
    with provider.connect() as client:
        return client.get(discovery(provider)["jwks_uri"]).raise_for_status().json()


def key_ids(provider):
    return [key["kid"] for key in published(provider)["keys"]]


def verified(provider, token, algorithm="RS256"):
    """The claims of a token that one of the published keys signed."""
    header = jwt.get_unverified_header(token)
    assert (header["typ"], header["alg"]) == ("at+jwt", algorithm)
    key = jwt.PyJWKSet.from_dict(published(provider))[header["kid"]]
    return jwt.decode(
        token, key, algorithms=[algorithm], audience="users-api", issuer=provider.issuer
    )


def signer(provider):
    return jwt.get_unverified_header(provider.token("urn:jwt"))["kid"]


def thumbprint(issued):
    digest = issued.certificate.fingerprint(hashes.SHA256())
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def test_discovery_names_the_issuer_and_its_endpoints(provider):
    document = discovery(provider)
    assert document["issuer"] == provider.issuer
    assert document["tls_client_certificate_bound_access_tokens"] is True
    for endpoint in ("token_endpoint", "introspection_endpoint", "revocation_endpoint"):
        assert document[endpoint].startswith(f"{provider.issuer}/")


def test_the_key_set_holds_public_keys_for_both_algorithms(provider):
    keys = published(provider)["keys"]
    assert {(key["kty"], key["alg"], key["use"]) for key in keys} == {
        ("RSA", "RS256", "sig"),
        ("EC", "ES256", "sig"),
    }
    assert not {"d", "p", "q"} & {name for key in keys for name in key}


@pytest.mark.parametrize(("resource", "algorithm"), [("urn:jwt", "RS256"), ("urn:es", "ES256")])
def test_a_jwt_is_as_rfc_9068_has_it(provider, resource, algorithm):
    claims = verified(provider, provider.token(resource), algorithm)
    assert claims["sub"] == claims["client_id"] == "service"
    assert (claims["aud"], claims["scope"]) == ("users-api", "read")
    assert claims["groups"] == ["team-a-admins"]
    assert claims["exp"] - claims["iat"] == 300
    assert abs(claims["iat"] - time.time()) < 60
    assert claims["jti"]
    assert "cnf" not in claims


def test_an_opaque_token_is_active_until_it_is_revoked(provider):
    token = provider.token("urn:opaque", scope="read write")
    answer = provider.introspect(token)
    assert answer.pop("exp") - answer.pop("iat") == 300
    assert answer == {
        "active": True,
        "aud": "users-api",
        "client_id": "service",
        "groups": ["team-a-admins"],
        "iss": provider.issuer,
        "scope": "read write",
        "token_type": "Bearer",
    }
    provider.revoke(token)
    assert provider.introspect(token) == {"active": False}


def test_tokens_of_the_bound_client_are_bound_to_its_certificate(provider, authority):
    certificate = authority.issue_client("bound")
    expected = {"x5t#S256": thumbprint(certificate)}
    signed = provider.token("urn:jwt", client="bound", certificate=certificate)
    opaque = provider.token("urn:opaque", client="bound", certificate=certificate)
    assert verified(provider, signed)["cnf"] == expected
    assert provider.introspect(opaque)["cnf"] == expected


def test_the_bound_client_gets_nothing_without_a_certificate_of_the_authority(provider):
    stranger = Authority.create("example.org").issue_client("bound")
    for certificate in (None, stranger):
        with pytest.raises(RuntimeError, match="invalid_grant"):
            provider.token("urn:jwt", client="bound", certificate=certificate)


def test_rotation_signs_with_a_new_key_and_publishes_both(provider):
    old, opaque = provider.token("urn:jwt"), provider.token("urn:opaque")
    before = key_ids(provider)
    after = provider.rotate()
    assert after[2:] == before
    assert key_ids(provider) == after
    assert signer(provider) == after[0]
    assert verified(provider, old)["sub"] == "service"
    assert provider.introspect(opaque)["active"] is True


def test_retirement_publishes_only_the_keys_that_sign(provider):
    new = provider.rotate()[:2]
    assert provider.retire() == new
    assert key_ids(provider) == new
    assert signer(provider) == new[0]


def test_a_rotation_may_drop_the_old_keys_at_once(provider):
    before = key_ids(provider)
    assert not set(provider.rotate(keep_old=False)) & set(before)
    assert not set(key_ids(provider)) & set(before)


def test_a_killed_provider_refuses_and_comes_back_with_its_keys(provider):
    signed, opaque = provider.token("urn:jwt"), provider.token("urn:opaque")
    before = provider.rotate()
    provider.kill()
    with pytest.raises(httpx.ConnectError):
        discovery(provider)
    provider.restart()
    assert key_ids(provider) == before
    assert verified(provider, signed)["iss"] == provider.issuer
    assert signer(provider) == before[0]
    assert provider.introspect(opaque) == {"active": False}
