"""Operations: a server with a mistaken configuration refuses to start, and names the place."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from secure_server import cli

LONG = "[server]\ngrace = 5\n\n[tls]\n# a comment\n"


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """``serve`` installs its signal handlers before it reads the configuration."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


class Command:
    """Runs ``secure-server serve`` in this process; it fails at the configuration."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
    ) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.file = file

    def refuses(self, text: str | bytes | None) -> str:
        """Return its whole output; fails the test where it does not refuse to start."""
        if text is not None:
            self.file.write_bytes(text.encode() if isinstance(text, str) else text)
        self._monkeypatch.setattr(
            sys, "argv", ["secure-server", "serve", "--config", str(self.file)]
        )
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 1
        output = self._capsys.readouterr()
        assert output.out == ""
        lines = output.err.splitlines()
        assert lines
        assert all(line.startswith("secure-server: ") for line in lines)
        assert all(line.endswith((".", "?")) for line in lines), lines
        return "\n".join(line.removeprefix("secure-server: ") for line in lines)


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    return Command(monkeypatch, capsys, tmp_path / "server.toml")


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        # Unknown keys and sections.
        (LONG + 'client_cas = "x"\n', "6: tls.client_cas", "did you mean client_ca?"),
        (LONG + "quux = 1\n", "6: tls.quux", "known are certificate, private_key, client_ca"),
        ("[http]\n\n[tlss]\n", "3: tlss", "did you mean tls?"),
        ("server.max_mesage_bytes = 1\n", "1: server.max_mesage_bytes", "max_message_bytes?"),
        ("grace = 5\n", "1: grace", "is not a setting"),
        (
            '[[workloads]]\nspiffe_id = "spiffe://a/b"\n[[workloads]]\nrole = ["x"]\n',
            "4: workloads.1.role",
            "did you mean roles?",
        ),
        # Empty where emptiness would allow everything, or nothing.
        (LONG + "trust_domains = []\n", "6: tls.trust_domains", "at least 1 item"),
        (LONG + 'trust_domains = [""]\n', "6: tls.trust_domains", "empty"),
        ('[tokens]\naudience = ""\n', "2: tokens.audience", "at least 1 character"),
        ('[tokens]\nissuer = ""\n', "2: tokens.issuer", "at least 1 character"),
        (LONG + 'private_key = ""\n', "6: tls.private_key", "path"),
        # Types and ranges.
        ('[server]\ngrace = "soon"\n', "2: server.grace", "valid number"),
        ("[server]\ngrace = true\n", "2: server.grace", "true or false"),
        ("[server]\ngrace = nan\n", "2: server.grace", "3600"),
        ("[server]\ngrace = -1\n", "2: server.grace", "0"),
        ("[server]\nstream_threads = true\n", "2: server.stream_threads", "true or false"),
        ("[server]\ndoor_threads = 1e3\n\n[log]\nx = 1\n", "5: log.x", "known are format, level"),
        ("[server]\ndoor_threads = 2.5\n", "2: server.door_threads", "integer"),
        ("[server]\nmax_message_bytes = 0\n", "2: server.max_message_bytes", "1024"),
        ('[server]\nreflection = "perhaps"\n', "2: server.reflection", "boolean"),
        ("[server]\nlisten = 50051\n", "2: server.listen", "string"),
        ('[server]\nlisten = "localhost"\n', "2: server.listen", "HOST:PORT"),
        ('[server]\nlisten = "localhost:65536"\n', "2: server.listen", "HOST:PORT"),
        ('[server]\nlisten = "local host\\n:1"\n', "2: server.listen", "HOST:PORT"),
        ('[server]\nlisten = "localhost:\\u0661"\n', "2: server.listen", "HOST:PORT"),
        ('[server]\nlisten = "localhost:+1"\n', "2: server.listen", "HOST:PORT"),
        (LONG + 'trust_domains = "example.org"\n', "6: tls.trust_domains", "list"),
        (LONG + 'trust_domains = ["Example.org"]\n', "6: tls.trust_domains", "lower-case"),
        (LONG + 'minimum_version = "1.1"\n', "6: tls.minimum_version", "'1.2' or '1.3'"),
        (LONG + "minimum_version = 1.3\n", "6: tls.minimum_version", "'1.2' or '1.3'"),
        (LONG + "certificate = 7\n", "6: tls.certificate", "path"),
        (LONG + 'certificate = "a\\u0000b"\n', "6: tls.certificate", "path"),
        ("[tokens]\naccess_token_lifetime = 3601\n", "2: tokens.access_token_lifetime", "3600"),
        ('[log]\nlevel = "loud"\n', "2: log.level", "'debug', 'info', 'warning' or 'error'"),
        ('[store]\nurl = "mysql://root:hunter2@h/d"\n', "2: store.url", "'mysql'"),
        ('[[workloads]]\nspiffe_id = "https://a/b"\n', "2: workloads.0.spiffe_id", "spiffe://"),
        ('[[workloads]]\nroles = ["x"]\n', "1: workloads.0.spiffe_id", "is missing"),
        (
            '[[workloads]]\nspiffe_id = "spiffe://a/b"\n' * 2,
            "1: workloads",
            "spiffe://a/b stands there twice",
        ),
        ("server = 5\n", "1: server", "is wrong"),
    ],
)
def test_O6_a_configuration_that_cannot_be_meant_is_refused_with_file_line_and_key(
    command: Command, text: str, place: str, says: str
) -> None:
    said = command.refuses(text)
    assert any(
        line.startswith(f"{command.file}:{place} ") and says in line for line in said.splitlines()
    ), said
    assert "hunter2" not in said


def test_O6_every_mistake_is_named_at_once(command: Command) -> None:
    said = command.refuses("[server]\ngrace = -1\nlisten = 1\n[tsl]\nx = 1\n").splitlines()
    assert [line.split(" ")[1] for line in said] == ["server.listen", "server.grace", "tsl"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[server\n", "line 1"),
        ("[server]\ngrace = 1\ngrace = 2\n", "line 3"),
        (b"\xff\xfe", "not UTF-8"),
        ("\x00", "not TOML"),
    ],
)
def test_O6_a_file_that_is_no_TOML_is_refused(
    command: Command, text: str | bytes, says: str
) -> None:
    said = command.refuses(text)
    assert said.startswith(f"{command.file}: ")
    assert says in said


def test_O6_a_file_that_cannot_be_read_is_refused(command: Command) -> None:
    said = command.refuses(None)
    assert said == f"{command.file}: No such file or directory. Name another with --config."
    command.file.mkdir()
    said = command.refuses(None)
    assert said == f"{command.file}: Is a directory. Name another with --config."


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("SECURE_SERVER_TLS__CLIENTCA", "x", "names no setting"),
        ("SECURE_SERVER_TLSS__CLIENT_CA", "x", "names no setting"),
        ("SECURE_SERVER_LISTEN", "127.0.0.1:0", "names no setting"),
        ("SECURE_SERVER_TLS_CLIENT_CA", "x", "names no setting"),
        ("SECURE_SERVER_TLS__TRUST_DOMAINS", "[]", "at least 1 item"),
        ("SECURE_SERVER_TLS__TRUST_DOMAINS", "example.org", "TRUST_DOMAINS"),
        ("SECURE_SERVER_SERVER__GRACE", "soon", "number"),
        ("SECURE_SERVER_TOKENS__AUDIENCE", "", "at least 1 character"),
        ("SECURE_SERVER_SERVER", "5", "SERVER"),
        ("SECURE_SERVER_TLS__TRUST_BUNDLES", "partner.pem", "written as JSON"),
        ("SECURE_SERVER_WORKLOADS", '[{"spiffe_id": "https://a/b"}]', "spiffe://"),
    ],
)
def test_O6_the_environment_is_as_strict_as_the_file(
    command: Command, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(variable, value)
    said = command.refuses("")
    assert variable in said
    assert says in said


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ('{"name": "p", "allow_rules": []}', "allow_rules"),
        ('{"name": "p"}', "allow_rules"),
        ('{"name": "p", "allow_rules": [{"name": "a", "sauce": {}}]}', "sauce"),
        ('{"name": "p", "allow_rules": [{"name": "a"}], "deny": []}', "deny"),
        (
            '{"name": "p", "allow_rules": [{"name": "a", "request": {"paths": ["/x/*"]}}]}',
            "has no rule for /secure_api.users.v1.UserService/CreateUser",
        ),
        ("{", "policy.json"),
        (None, "policy.json"),
    ],
)
def test_O6_a_policy_that_cannot_be_meant_refuses_to_start(
    tmp_path: Path, policy: str | None, says: str
) -> None:
    """Runs the real command; the rest of the configuration is valid."""
    from support.running import Installation

    settings = '[policy]\nfile = "policy.json"\n'
    if policy is not None:
        tmp_path.joinpath("policy.json").write_text(policy)
    server = Installation(tmp_path, settings=settings).spawn()
    assert server.process.wait(60) == 1
    said = [line for line in server.log.splitlines() if line.startswith("secure-server: ")]
    assert len(said) == 1, server.log
    assert says in said[0]
    assert "Traceback" not in server.log


def test_O6_the_real_command_says_so_too(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("[tls]\nclient_cas = 1\n")
    script = Path(sys.executable).with_name("secure-server")
    done = subprocess.run(
        [script, "serve", "--config", file], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"secure-server: {file}:2: tls.client_cas is not a setting; did you mean client_ca?\n"
    )
