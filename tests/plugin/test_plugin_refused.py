"""A plug-in that cannot be used: one sentence that says which, where and what to do; status 1."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from secure_server.auth import plugin
from secure_server.cli import main
from secure_server.plugins import Settings
from support.running import DEADLINE, Installation

GOOD = """\
from secure_server.plugins import AuthenticatorType, Settings
TYPE = AuthenticatorType(Settings, print)
"""
Serve = Callable[[str], str]


def announce(folder: Path, package: str, kind: str, code: str, attribute: str = "TYPE") -> None:
    """Write what pip leaves of a package of one module that announces one type."""
    module = package.replace("-", "_")
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text(
        f"[secure_server.authenticators]\n{kind} = {module}:{attribute}\n"
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where packages count as installed, for this test."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def serve(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Serve]:
    """Run `secure-server serve` here, with these lines as its configuration; return what it said
    before it ended with status 1.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def serve(lines: str) -> str:
        (tmp_path / "c.toml").write_text(lines)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["secure-server", "serve", "--config", "c.toml"])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert (ended.value.code, said.out) == (1, "")
        return said.err

    yield serve
    for number, handler in handlers.items():
        signal.signal(number, handler)
    # What this test has imported is another package's next time.
    made_here = str(tmp_path_factory.getbasetemp())
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(made_here):
            del sys.modules[name]


def table(kind: str) -> str:
    return f'[log]\nformat = "json"\n\n[[authenticators]]\ntype = "{kind}"\n'


def test_a_type_that_no_package_announces(serve: Serve) -> None:
    assert serve(table("acme-sso")) == (
        "secure-server: c.toml:5: authenticators.0.type is no type of authenticator that is "
        "installed; there are api_key, certificate, introspection, jwt, oidc.\n"
    )
    assert serve(table("api_keys")).endswith("installed; did you mean api_key?\n")


def test_a_type_that_two_packages_announce(folder: Path, serve: Serve) -> None:
    """Neither is loaded: it would be unclear which of them vouches for the callers."""
    for package in ("acme-sso", "other-sso"):
        announce(folder, package, "acme-sso", "raise SystemExit('loaded')")
    assert serve(table("acme-sso")) == (
        "secure-server: c.toml:5: authenticators.0.type is ambiguous: acme-sso 2.5 (acme_sso:TYPE) "
        "and other-sso 2.5 (other_sso:TYPE) both provide 'acme-sso'; uninstall one of them.\n"
    )


def test_a_built_in_type_that_a_package_announces_too(folder: Path, serve: Serve) -> None:
    announce(folder, "thief", "jwt", GOOD)
    assert "is ambiguous: secure-grpc " in serve(table("jwt"))


def test_a_type_for_another_version_of_the_protocol(folder: Path, serve: Serve) -> None:
    later = GOOD.replace("print)", "print, api_version=2)")
    announce(folder, "acme-sso", "acme-sso", later)
    assert serve(table("acme-sso")) == (
        "secure-server: c.toml:5: authenticators.0.type was written for version 2 of the plug-in "
        "protocol, and this is version 1: install a release of acme-sso 2.5 (acme_sso:TYPE) that "
        "goes with it.\n"
    )


def test_a_type_without_a_version_is_of_the_first(
    folder: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever version runs it: it was written before there was another."""
    monkeypatch.setattr(plugin, "API_VERSION", 2)
    announce(folder, "acme-sso", "acme-sso", GOOD)
    assert "was written for version 1 of the plug-in protocol" in serve(table("acme-sso"))


@pytest.mark.parametrize(
    ("code", "attribute", "reason"),
    [
        (
            "import ldap_that_is_missing",
            "TYPE",
            "ModuleNotFoundError: No module named 'ldap_that_is_missing'",
        ),
        (GOOD, "TYPO", "AttributeError: module 'acme_sso' has no attribute 'TYPO'"),
        ("TYPE = (", "TYPE", "SyntaxError: '(' was never closed (acme_sso.py, line 1)"),
        ("TYPE = 1 / 0", "TYPE", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_type_that_cannot_be_imported(
    folder: Path, serve: Serve, code: str, attribute: str, reason: str
) -> None:
    announce(folder, "acme-sso", "acme-sso", code, attribute)
    assert serve(table("acme-sso")) == (
        "secure-server: c.toml:5: authenticators.0.type cannot be loaded from acme-sso 2.5 "
        f"(acme_sso:{attribute}): {reason}.\n"
    )


def test_an_entry_point_that_is_no_type(folder: Path, serve: Serve) -> None:
    announce(folder, "acme-sso", "acme-sso", "TYPE = print")
    assert serve(table("acme-sso")) == (
        "secure-server: c.toml:5: authenticators.0.type is not an AuthenticatorType in "
        "acme-sso 2.5 (acme_sso:TYPE).\n"
    )


def test_a_setting_that_is_missing(
    site: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    monkeypatch.syspath_prepend(site)
    assert (
        serve(table("acme-sso")) == "secure-server: c.toml:4: authenticators.0.file is missing.\n"
    )


WRONG_SETTINGS = """\
secure-server: {config}:9: authenticators.0.file is wrong: Input is not a valid path for <class \
'pathlib.Path'>.
secure-server: {config}:10: authenticators.0.window is not a setting; known are type, name, file.
"""
NO_FILE = """\
secure-server: The authenticator 'acme-sso': {root}/keys.toml: cannot be read: No such file or \
directory.
"""


@pytest.mark.parametrize(
    ("settings", "said"),
    [("file = 7\nwindow = 90\n", WRONG_SETTINGS), ('file = "keys.toml"\n', NO_FILE)],
    ids=["its_table", "its_file"],
)
def test_settings_that_are_wrong_by_the_real_command(
    site: Path, tmp_path: Path, settings: str, said: str
) -> None:
    """The lines are those of the whole file, where `[[authenticators]]` is the seventh."""
    text = f'[[authenticators]]\ntype = "acme-sso"\n{settings}'
    environment = {"PYTHONPATH": str(site)}
    installation = Installation(tmp_path, settings=text, environment=environment)
    server = installation.spawn()
    assert server.process.wait(DEADLINE) == 1
    assert server.log == said.format(config=installation.config, root=tmp_path)


def test_an_error_of_settings_never_quotes_the_value() -> None:
    """A plug-in that reads a file of secrets by a pydantic model may let its error through."""

    class Secret(Settings):
        key: int

    with pytest.raises(ValueError, match="valid integer") as refused:
        Secret.model_validate({"key": "hunter2"})
    assert "hunter2" not in str(refused.value)
