"""The example plug-in, as its README has it: installed, configured, and recognising callers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from secure_api.tokens.v1.token_service_pb2 import WhoAmIRequest
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from support.running import DEADLINE, Running, bearer, running_server

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/acme-sso"
README = (EXAMPLE / "README.md").read_text(encoding="utf-8")


def marked(mark: str) -> str:
    (text,) = re.findall(rf"<!-- {mark} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    return str(text)


def run(running: Running, site: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=running.installation.root,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.fixture(scope="module")
def running(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with nothing of the plug-in's but the table in its configuration."""
    root = tmp_path_factory.mktemp("server")
    subprocess.run(["bash", "-euc", marked("keys")], cwd=root, check=True)
    settings = marked("configuration")
    with running_server(root, settings=settings, environment={"PYTHONPATH": str(site)}) as server:
        yield server


def test_by_a_table_of_the_configuration_alone_the_server_knows_its_callers(
    running: Running, site: Path
) -> None:
    """The client of the README says so: WhoAmI names the authenticator."""
    assert running.admin.certificate.relative_to(running.installation.root) == Path(
        "certs/clients/admin.pem"
    )
    script = marked("client").replace("localhost:50051", running.address)
    (shown,) = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    done = run(running, site, sys.executable, "-c", script)
    assert (done.returncode, done.stdout) == (0, shown), done.stderr


def test_the_authenticator_beside_it_still_recognises_its_callers(running: Running) -> None:
    with running.admin.channel(running.address) as channel:
        me = TokenServiceStub(channel).WhoAmI(
            WhoAmIRequest(), metadata=bearer(running.admin_token()), timeout=DEADLINE
        )
    assert (me.token.authenticator, me.token.subject) == ("jwt", "users/admin")


def test_check_says_what_it_would_accept(running: Running, site: Path) -> None:
    secure_server = Path(sys.executable).with_name("secure-server")
    config = running.installation.config
    done = run(running, site, secure_server, "check", "--config", config)
    file = config.with_name("acme-keys.toml")
    assert (
        f"ok    authenticator acme-sso: ACME-HMAC signatures with the keys ci out of {file}, for "
        "60 seconds, over the certificate that was signed\n"
    ) in done.stdout, done.stderr
    assert done.returncode == 0


def test_the_examples_own_tests_pass() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "."],
        cwd=EXAMPLE,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d\d passed", done.stdout, re.MULTILINE), done.stdout
