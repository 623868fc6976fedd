"""What users get, and what they need for it."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import secure_server.testing

MODULES = [
    "secure_server.testing",
    *(
        f"secure_server.testing.{module.name}"
        for module in pkgutil.iter_modules(secure_server.testing.__path__)
    ),
]
SERVER_EXTRA = {
    "alembic",
    "cheroot",
    "grpc_health",
    "grpc_reflection",
    "prometheus_client",
    "sqlalchemy",
}
IDENTITY_SERVICE = {"services", "store", "tokens", "users", "app", "cli"}


def test_the_public_names() -> None:
    assert sorted(secure_server.testing.__all__) == [
        "AioGuardedServer",
        "DEFECTS",
        "GuardedServer",
        "Issuer",
        "Provider",
        "aio_guarded_server",
        "as_principal",
        "guarded_server",
        "running_provider",
    ]
    for name in secure_server.testing.__all__:
        assert name == "DEFECTS" or getattr(secure_server.testing, name).__doc__


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_the_docstrings_run(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.failed == 0


def test_there_are_examples_to_run() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [
        test.name
        for module in MODULES
        for test in finder.find(importlib.import_module(module))
        if test.examples
    ]
    assert sorted(found) == [
        "secure_server.testing",
        "secure_server.testing.aio.aio_guarded_server",
        "secure_server.testing.caller.as_principal",
        "secure_server.testing.issuer.Issuer",
    ]


def test_the_base_install_suffices() -> None:
    """The examples run where nothing of the extra [server] can be imported."""
    script = f"""
import doctest, importlib, sys
for name in {sorted(SERVER_EXTRA)}:
    sys.modules[name] = None
for name in {MODULES}:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def loaded_by(statement: str) -> set[str]:
    script = f"import sys, {statement}; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_it_loads_neither_the_extra_nor_the_identity_service_nor_the_tests() -> None:
    # gRPC itself loads its companions where they are installed.
    loaded = loaded_by("secure_server.testing") - loaded_by("grpc")
    assert "secure_server.testing" in loaded
    assert not SERVER_EXTRA & loaded
    assert not {f"secure_server.{name}" for name in IDENTITY_SERVICE} & loaded
    assert not {"pytest", "support", "secure_client", "secure_api"} & loaded


def test_production_never_loads_it() -> None:
    loaded = loaded_by("secure_server.app.lifecycle, secure_server.app.check, secure_server.cli")
    assert "secure_server.app.lifecycle" in loaded
    assert not [name for name in loaded if name.startswith("secure_server.testing")]
