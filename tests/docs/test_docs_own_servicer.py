"""docs/own-servicer.md and the greeter: an issuer, a servicer of one's own, its clients."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_docs_run import BIN, ROOT, SECONDS, blocks, environment

from secure_server import Credentials, Guard, Principal
from secure_server.guard.call import Call
from secure_server.plugins import Scheme
from secure_tls.authority import Authority
from support.running import Running, running_server

DOCUMENT = (ROOT / "docs/own-servicer.md").read_text(encoding="utf-8")
NODE = ROOT / "tests/interop/node"


def marked(mark: str) -> str:
    (text,) = re.findall(rf"<!-- {re.escape(mark)} -->\n```\w+\n(.*?)```", DOCUMENT, re.DOTALL)
    return str(text)


@pytest.mark.parametrize(
    ("name", "text"),
    re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", DOCUMENT, re.DOTALL),
    ids=lambda value: value if value.startswith("examples") else "",
)
def test_what_is_quoted_stands_in_the_example(name: str, text: str) -> None:
    assert text in (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(tmp_path_factory.mktemp("identity")) as running:
        yield running


@pytest.fixture
def greeter(identity: Running, tmp_path: Path) -> Path:
    """The example outside the repository, with what step 1 of the document makes."""
    folder = tmp_path / "examples" / "greeter"
    shutil.copytree(ROOT / "examples/greeter", folder, ignore=shutil.ignore_patterns("certs"))
    (tmp_path / "certs").symlink_to(identity.admin.ca.parent)
    session = tmp_path / "config" / "secure-client"
    session.mkdir(parents=True, mode=0o700)
    script = marked("setup").replace("secure-client token", "cat ../../admin-token")
    (tmp_path / "admin-token").write_text(identity.admin_token())
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=tmp_path,
        env=environment(tmp_path, SECURE_CLIENT_TARGET=identity.address)
        | {
            "SECURE_CLIENT_CA": str(identity.admin.ca),
            "SECURE_CLIENT_CERTIFICATE": str(identity.admin.certificate),
            "SECURE_CLIENT_PRIVATE_KEY": str(identity.admin.private_key),
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@contextmanager
def serving(greeter: Path, command: str) -> Iterator[str]:
    """Run the example's server on a free port."""
    process = subprocess.Popen(
        [BIN / "python", *command.split()[1:], "localhost:0"],
        cwd=greeter,
        env=environment(greeter),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        port = re.fullmatch(r"serving on port (\d+)\n", line)
        assert port is not None, process.communicate(timeout=5)
        yield f"localhost:{port[1]}"
    finally:
        process.kill()
        process.communicate()


def test_the_configuration_is_checked_as_the_document_has_it(greeter: Path) -> None:
    done = subprocess.run(
        [BIN / "secure-server", *marked("check").split()[1:]],
        cwd=greeter,
        env=environment(greeter),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {line[:6] for line in done.stdout.splitlines()} == {"ok    "}


@pytest.mark.parametrize("stack", ["threads", "asyncio"])
def test_the_greeter_serves_all_four_kinds_on_either_stack(greeter: Path, stack: str) -> None:
    (expected,) = [block.text for block in blocks("docs/own-servicer.md") if block.kind == "text"]
    assert expected in (ROOT / "examples/greeter/README.md").read_text()
    with serving(greeter, marked(stack)) as address:
        done = subprocess.run(
            [BIN / "python", *marked("client").split()[1:], address],
            cwd=greeter,
            env=environment(greeter),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, expected), done.stderr
        node = shutil.which("node")
        if node is None or not (NODE / "node_modules").is_dir():
            pytest.skip("no node, or no `npm ci` in tests/interop/node: Python's client was run")
        script = greeter / "client.mjs"
        shutil.copy(greeter / "client.js", script)
        (greeter / "package.json").write_text("{}")
        (greeter / "node_modules").symlink_to(NODE / "node_modules")
        done = subprocess.run(
            [node, script, address],
            cwd=greeter,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == expected.replace("without a token: UNAUTHENTICATED\n", "")


def test_the_examples_own_test_passes() -> None:
    folder = ROOT / "examples/greeter"
    done = subprocess.run(
        [BIN / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, "."],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_a_guard_of_values_is_made_as_the_document_shows() -> None:
    authority = Authority.create("example.org")
    leaf = authority.issue_server("server", ["localhost"])
    names = {
        "certificate": leaf.certificate_pem,
        "private_key": leaf.private_key_pem,
        "client_ca": authority.certificate_pem,
        "policy": '{"name": "open", "allow_rules": [{"name": "all"}]}',
        "authenticator": Anybody(),
    }
    exec(marked("values"), names)
    guard = names["guard"]
    assert isinstance(guard, Guard)
    try:
        with guard.thread_pool() as pool:
            assert pool._max_workers == 64
        alice = authority.issue_client("alice")
        transport = {
            "transport_security_type": [b"ssl"],
            "ssl_tls_version": [b"TLSv1.3"],
            "x509_pem_cert": [alice.certificate_pem],
        }
        metadata = (("user-agent", "test"), ("authorization", "Name alice"))
        caller = guard.core.admit(Call("/any/Method", metadata, transport))
        assert caller.principal.subject == "alice"
    finally:
        guard.close()


class Anybody:
    """Takes a caller's word for it."""

    name = "anybody"
    matchers = (Scheme("Name"),)

    def authenticate(self, credentials: Credentials | None, _peer: object) -> Principal | None:
        assert credentials is not None
        return Principal(credentials.value, "https://nowhere", self.name)
