"""grpcurl, which has no copy of the contract and learns it by reflection."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

GRPCURL = (
    os.environ.get("GRPCURL")
    or shutil.which("grpcurl")
    or shutil.which("grpcurl", path=Path.home() / "go" / "bin")
)

pytestmark = pytest.mark.skipif(
    GRPCURL is None,
    reason="grpcurl is not installed: "
    "go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest",
)

UNAUTHENTICATED = 64 + 16  # grpcurl exits with 64 and the status


@pytest.fixture
def grpcurl(running):
    files = running.admin

    def run(*arguments, token=None, flags=()):
        authorization = [] if token is None else ["-H", f"authorization: Bearer {token}"]
        return subprocess.run(
            [
                *(GRPCURL, "-max-time", "30"),
                *("-cacert", files.ca, "-cert", files.certificate, "-key", files.private_key),
                *authorization,
                *flags,
                running.address,
                *arguments,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_reflection_lists_the_services(grpcurl, token):
    done = grpcurl("list", token=token)
    assert done.returncode == 0, done.stderr
    assert {
        "grpc.health.v1.Health",
        "secure_api.tokens.v1.TokenService",
        "secure_api.users.v1.UserService",
    } <= set(done.stdout.split())


def test_reflection_describes_every_method(grpcurl, token):
    done = grpcurl("describe", "secure_api.users.v1.UserService", token=token)
    assert done.returncode == 0, done.stderr
    assert "rpc WatchUsers" in done.stdout


def test_a_method_found_by_reflection_is_called(grpcurl, token):
    done = grpcurl("secure_api.tokens.v1.TokenService/WhoAmI", token=token)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    # Descriptors of Python carry no JSON names, so grpcurl prints the fields' own.
    assert answer["certificate"]["spiffe_id"] == "spiffe://example.org/client/admin"
    assert answer["token"]["subject"] == "users/admin"


def test_without_a_token_reflection_is_refused(grpcurl):
    done = grpcurl("list")
    assert done.returncode != 0
    assert "The credentials of this call were refused." in done.stderr
    assert "secure_api" not in done.stdout + done.stderr


def test_without_a_token_a_call_from_the_schema_is_refused(grpcurl):
    protos = Path(__file__).parents[2] / "protos"
    schema = ["-import-path", protos, "-proto", "secure_api/tokens/v1/token_service.proto"]
    done = grpcurl("secure_api.tokens.v1.TokenService/WhoAmI", flags=schema)
    assert done.returncode == UNAUTHENTICATED, done.stderr
    assert "Code: Unauthenticated" in done.stderr
