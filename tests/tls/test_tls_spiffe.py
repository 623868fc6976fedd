"""SPIFFE IDs are read as strictly as the standard writes them."""

import pytest

from secure_tls import SpiffeID, SpiffeIDError, check_trust_domain

GOOD = [
    ("spiffe://example.org", "example.org", ""),
    ("spiffe://example.org/client/admin", "example.org", "/client/admin"),
    ("spiffe://a_b-c.1/A-Z_a.z09", "a_b-c.1", "/A-Z_a.z09"),
    ("spiffe://10.0.0.1/x", "10.0.0.1", "/x"),
    ("spiffe://example.org/...", "example.org", "/..."),
    ("spiffe://" + "a" * 255 + "/x", "a" * 255, "/x"),
    ("spiffe://a/" + "x" * 2037, "a", "/" + "x" * 2037),
]

BAD = [
    ("", "scheme"),
    ("example.org/x", "scheme"),
    ("SPIFFE://example.org/x", "scheme"),
    ("spiffe:/example.org/x", "scheme"),
    ("https://example.org/x", "scheme"),
    (" spiffe://example.org/x", "scheme"),
    ("spiffe://", "trust_domain"),
    ("spiffe:///x", "trust_domain"),
    ("spiffe://Example.org/x", "trust_domain"),
    ("spiffe://example.org:443/x", "trust_domain"),
    ("spiffe://user@example.org/x", "trust_domain"),
    ("spiffe://exa%6dple.org/x", "trust_domain"),
    ("spiffe://ex\u00e4mple.org/x", "trust_domain"),
    ("spiffe://example.org?x", "trust_domain"),
    ("spiffe://example.org#x", "trust_domain"),
    ("spiffe://example.org\n", "trust_domain"),
    ("spiffe://" + "a" * 256 + "/x", "trust_domain"),
    ("spiffe://example.org/", "path"),
    ("spiffe://example.org/x/", "path"),
    ("spiffe://example.org//x", "path"),
    ("spiffe://example.org/./x", "path"),
    ("spiffe://example.org/x/..", "path"),
    ("spiffe://example.org/a%2fb", "path"),
    ("spiffe://example.org/x?q=1", "path"),
    ("spiffe://example.org/x#f", "path"),
    ("spiffe://example.org/x y", "path"),
    ("spiffe://example.org/x\n", "path"),
    ("spiffe://example.org/x\x00", "path"),
    ("spiffe://example.org/\u00e4", "path"),
    ("spiffe://a/" + "x" * 2038, "length"),
]


@pytest.mark.parametrize(("text", "trust_domain", "path"), GOOD)
def test_an_id_is_read_and_written_as_the_same_text(text, trust_domain, path):
    spiffe_id = SpiffeID.parse(text)
    assert (spiffe_id.trust_domain, spiffe_id.path) == (trust_domain, path)
    assert str(spiffe_id) == text


@pytest.mark.parametrize(("text", "code"), BAD)
def test_T11_what_is_no_id_is_refused(text, code):
    with pytest.raises(SpiffeIDError) as caught:
        SpiffeID.parse(text)
    assert caught.value.code == code
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["", "Example.org", "example.org/x", "a:1", "a" * 256, "a b"])
def test_what_is_no_trust_domain_is_refused(text):
    with pytest.raises(SpiffeIDError, match="trust domain"):
        check_trust_domain(text)
