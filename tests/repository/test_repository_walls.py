"""Which package may import which."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_import_walls_stand() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_generated_code_is_what_the_contract_generates() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "gen_protos.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "secure_server.auth",
        "secure_server.authz",
        "secure_server.audit",
        "secure_tls",
        "secure_server.guard.core",
    ],
)
def test_rooms_without_grpc_do_not_load_it(name: str) -> None:
    """import-linter sees imports; this sees what is loaded, `secure_server` itself included."""
    script = f"import sys, {name}; sys.exit('grpc' in sys.modules)"
    if name.startswith("secure_server.guard"):
        script = (
            "import ast, sys; tree = ast.parse(open('secure_server/guard/core.py').read());"
            "names = {getattr(n, 'module', '') or '' for n in ast.walk(tree)};"
            "sys.exit(any(n.split('.')[0] == 'grpc' for n in names))"
        )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
