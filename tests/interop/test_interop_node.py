"""A client that shares no code with grpcio: Node's @grpc/grpc-js, from the .proto files."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

NODE_FOLDER = Path(__file__).parent / "node"
PROTOS = Path(__file__).parents[2] / "protos"
EVERY_KIND = ["whoAmI", "watchUsers", "importUsers", "introspect", "reflection"]

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(
        not (NODE_FOLDER / "node_modules" / "@grpc" / "grpc-js").is_dir(),
        reason="@grpc/grpc-js is not installed: npm ci --prefix tests/interop/node",
    ),
]


@pytest.fixture(scope="module")
def outcome(running, token):
    files = running.admin
    settings = {
        "address": running.address,
        "protos": str(PROTOS),
        "ca": str(files.ca),
        "certificate": str(files.certificate),
        "private_key": str(files.private_key),
        "token": token,
    }
    done = subprocess.run(
        ["node", "client.js"],
        cwd=NODE_FOLDER,
        input=json.dumps(settings),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_kind_of_call_is_served(outcome, kind):
    assert (outcome["withToken"][kind]["code"], outcome["withToken"][kind]["details"]) == ("OK", "")


def test_who_am_i_names_certificate_and_token(outcome):
    (response,) = outcome["withToken"]["whoAmI"]["responses"]
    assert response["certificate"]["spiffe_id"] == "spiffe://example.org/client/admin"
    assert response["token"]["subject"] == "users/admin"
    assert response["token"]["roles"] == ["admin"]


def test_a_server_stream_says_where_it_stands(outcome):
    (response,) = outcome["withToken"]["watchUsers"]["responses"]
    assert response["change"] == "CHANGE_WATCHING"
    assert response["resume_token"]


def test_a_client_stream_is_answered_once(outcome):
    (response,) = outcome["withToken"]["importUsers"]["responses"]
    assert (response["imported_count"], response["failed_count"]) == (2, 1)
    assert [failure["index"] for failure in response["failures"]] == [2]


def test_a_bidirectional_stream_answers_each_message(outcome):
    responses = outcome["withToken"]["introspect"]["responses"]
    assert [(r["correlation_id"], r["active"]) for r in responses] == [
        ("good", True),
        ("bad", False),
    ]


def test_reflection_lists_the_services(outcome):
    (response,) = outcome["withToken"]["reflection"]["responses"]
    assert "secure_api.users.v1.UserService" in response


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_without_a_token_every_kind_of_call_is_refused(outcome, kind):
    refused = outcome["withoutToken"][kind]
    assert (refused["code"], refused["responses"]) == ("UNAUTHENTICATED", [])
