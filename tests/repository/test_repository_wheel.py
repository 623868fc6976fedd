"""The wheel installed outside the repository, with the base dependencies only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


def run(*command: str | Path, cwd: Path, ok: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=110
    )
    if ok:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that holds the wheel's base install."""
    root = tmp_path_factory.mktemp("wheel")
    source = root / "source"
    for name in ("secure_base", "secure_api", "secure_tls", "secure_server", "secure_client"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source / name)
    wheels = root / "wheels"
    built = run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", wheels, source),
        cwd=root,
        ok=False,
    )
    if built.returncode:
        pytest.skip(f"no wheel can be built here: {built.stderr[-200:]}")
    environment = root / "environment"
    venv.create(environment)
    python = environment / "bin" / "python"
    (wheel,) = wheels.glob("*.whl")
    # By this environment's pip, and not compiled: a quarter of the time.
    pip = (sys.executable, "-m", "pip", "--python", python)
    installed = run(*pip, "install", "--quiet", "--no-compile", wheel, cwd=root, ok=False)
    if installed.returncode:
        pytest.skip(f"the package index cannot be reached: {installed.stderr[-200:]}")
    return python


def test_the_wheels_base_install_is_the_guard_and_the_client(python: Path, tmp_path: Path) -> None:
    """One test, because the environment takes longest: five claims."""
    the_public_names_load_and_nothing_of_the_servers_own(python, tmp_path)
    commands_that_need_no_service_run(python, tmp_path)
    a_command_that_lacks_its_dependencies_says_which_to_install(python, tmp_path)
    the_greeters_guard_starts_without_repository_store_or_identity_service(python, tmp_path)
    certificates_are_made_from_a_bare_clone(python, tmp_path)


def the_public_names_load_and_nothing_of_the_servers_own(python: Path, folder: Path) -> None:
    script = (
        "import secure_server, secure_client, sys\n"
        "names = [getattr(secure_server, n) for n in secure_server.__all__]\n"
        "names += [getattr(secure_client, n) for n in secure_client.__all__]\n"
        "import secure_server.testing\n"
        "loaded = {'sqlalchemy', 'alembic', 'cheroot', 'prometheus_client'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)\n"
    )
    run(python, "-c", script, cwd=folder)
    run(python.with_name("secure-certs"), "--out", "certs", cwd=folder)
    run(python.with_name("secure-client"), "--help", cwd=folder)


def commands_that_need_no_service_run(python: Path, folder: Path) -> None:
    def server(*arguments: str) -> str:
        return run(python.with_name("secure-server"), *arguments, cwd=folder).stdout

    (version,) = re.findall(r"(?m)^version = (\S+)$", (ROOT / "setup.cfg").read_text())
    for name in ("secure-server", "secure-client", "secure-certs"):
        done = run(python.with_name(name), "--version", cwd=folder)
        assert done.stdout == f"{name} {version}\n"
    assert "bootstrap" in server("--help")
    (folder / "policy.json").write_text('{"name": "p", "allow_rules": [{"name": "r"}]}')
    (folder / "cases.json").write_text('[{"id": "a", "method": "/a", "expect": "allow"}]')
    assert "0 errors" in server("policy", "check", "policy.json")
    assert "ALLOWED" in server("policy", "explain", "policy.json", "--method", "/a")
    assert "none differing" in server("policy", "test", "policy.json", "cases.json")
    assert server("api-keys", "create", "--owner", "ci").startswith("sgk_")
    assert "ci" in server("api-keys", "list")
    assert "signs now" in server("keys", "rotate")
    assert "signing" in server("keys", "list")


def a_command_that_lacks_its_dependencies_says_which_to_install(python: Path, folder: Path) -> None:
    for command in ("serve", "check", "bootstrap"):
        done = run(python.with_name("secure-server"), command, cwd=folder, ok=False)
        assert done.returncode == 1
        assert re.fullmatch(
            r"secure-server: This command needs the package \w+\. Install the server's own "
            r"dependencies: pip install 'secure-grpc\[server\]'\n",
            done.stderr,
        )


def the_greeters_guard_starts_without_repository_store_or_identity_service(
    python: Path, folder: Path
) -> None:
    greeter = folder / "greeter"
    shutil.copytree(ROOT / "examples/greeter", greeter)
    run(python.with_name("secure-certs"), "--out", "certs", cwd=greeter)
    # Its own server, its own client; the tokens come from an issuer of the tests.
    script = (
        "import secure_server.testing as testing\n"
        "open('jwks.json', 'w').write(testing.Issuer().jwks())\n"
        "import secure_server\n"
        "guard = secure_server.Guard.from_config('greeter.toml')\n"
        "guard.server_credentials()\n"
        "guard.close()\n"
    )
    run(python, "-c", script, cwd=greeter)
    check = ("check", "--own-servicer", "--config", "greeter.toml")
    assert (
        "ok    certificate: " in run(python.with_name("secure-server"), *check, cwd=greeter).stdout
    )


def certificates_are_made_from_a_bare_clone(python: Path, folder: Path) -> None:
    """The last: nothing of ours is installed any more."""
    clone = folder / "clone"
    for name in ("secure_base", "secure_tls"):
        shutil.copytree(ROOT / name, clone / name)
    (clone / "tools").mkdir()
    shutil.copy2(ROOT / "tools/gen_certs.py", clone / "tools")
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "uninstall", "--quiet", "--yes", "secure-grpc", cwd=folder)
    assert run(python, "-c", "import secure_tls", cwd=folder, ok=False).returncode == 1
    run(python, clone / "tools/gen_certs.py", "--out", "bare", cwd=folder)
    assert (folder / "bare/server.pem").exists()
    done = run(python, clone / "tools/gen_certs.py", "--version", cwd=folder)
    assert done.stdout == "secure-certs unknown\n"
