"""The rules of the contract for the fields of a user."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_server.users import rules
from secure_server.users.errors import InvalidArgumentError

LETTERS = "abcdefghijklmnopqrstuvwxyz"
DIGITS = "0123456789"


@given(
    st.sampled_from(LETTERS),
    st.text(LETTERS + DIGITS + "-", max_size=61),
    st.sampled_from(["", *LETTERS, *DIGITS]),
)
def test_every_name_of_the_rule_is_accepted(first, middle, last):
    name = first + middle + last if last else first + middle.rstrip("-")
    assert rules.check_user_name(name) == name
    assert rules.parse_resource_name(f"users/{name}") == name


@given(st.text())
def test_no_other_text_is_a_user_name(text):
    good = (
        0 < len(text) <= 63
        and all(c in LETTERS + DIGITS + "-" for c in text)
        and text[0] in LETTERS
        and text[-1] != "-"
    )
    assert rules.is_user_name(text) == good


@pytest.mark.parametrize(
    "variant",
    [
        "Alice",
        "ALICE",
        " alice",
        "alice ",
        "alice\n",
        "\u0430lice",
        "ⓐlice",
        "alice\0",
        "a" * 64,
        "1a",
    ],
)
def test_u26_other_spellings_are_refused_with_the_field(variant):
    with pytest.raises(InvalidArgumentError) as caught:
        rules.check_user_name(variant)
    assert caught.value.field == "user_id"


@pytest.mark.parametrize("name", ["", "alice", "users/", "users/-", "users/a/b", "Users/alice"])
def test_only_users_and_a_name_is_a_resource_name(name):
    with pytest.raises(InvalidArgumentError) as caught:
        rules.parse_resource_name(name)
    assert caught.value.field == "name"


@given(st.lists(st.from_regex(r"[a-z0-9._-]{1,63}", fullmatch=True), max_size=32))
def test_roles_come_back_sorted_and_once(roles):
    assert rules.check_roles(roles) == tuple(sorted(set(roles)))


@pytest.mark.parametrize(
    "roles", [["Admin"], [""], ["a" * 64], ["a b"], ["admin\n"], [f"r{i}" for i in range(33)]]
)
def test_bad_roles_are_refused(roles):
    with pytest.raises(InvalidArgumentError) as caught:
        rules.check_roles(roles)
    assert caught.value.field == "roles"


@pytest.mark.parametrize("email", ["", "ada@example.com", "a+b@x", "jörg@exämple.org"])
def test_addresses_are_accepted(email):
    assert rules.check_email(email) == email


@pytest.mark.parametrize(
    "email", ["ada", "@x", "ada@", "a da@x", "a@x\n", "a" * 253 + "@x", "\0@x"]
)
def test_an_invalid_address_is_refused(email):
    with pytest.raises(InvalidArgumentError) as caught:
        rules.check_email(email)
    assert caught.value.field == "email"


def test_display_names_are_up_to_128_characters_without_control_characters():
    assert rules.check_display_name("Ada 👩‍💻 " * 10)
    for bad in ("x" * 129, "a\nb", "a\x7fb", "a\x85b", "a\0b", "\ud800"):
        with pytest.raises(InvalidArgumentError):
            rules.check_display_name(bad)


def test_request_ids_are_uuids_whatever_their_case():
    uuid = "0b5d4e35-4a4e-4d3a-8f2b-1d2b3c4d5e6f"
    assert rules.check_request_id(uuid.upper()) == uuid
    assert rules.check_request_id("") == ""
    for bad in ("x", uuid + "\n", uuid.replace("-", ""), "{" + uuid + "}"):
        with pytest.raises(InvalidArgumentError):
            rules.check_request_id(bad)
