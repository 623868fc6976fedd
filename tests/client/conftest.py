"""A world of certificates, a small token service in it, and no profile of the developer."""

import pytest
from client_service import TokenService, make_world, start


@pytest.fixture(scope="session")
def shared_world(tmp_path_factory):
    """Issued once per worker; tests must not change its files."""
    return make_world(tmp_path_factory.mktemp("certs"))


@pytest.fixture
def world(tmp_path):
    folder = tmp_path / "certs"
    folder.mkdir()
    return make_world(folder)


@pytest.fixture
def running(world):
    server, found = start(world, TokenService())
    yield found
    server.stop(None).wait()


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """No test sees the developer's own profiles."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("TARGET", "CA", "CERTIFICATE", "PRIVATE_KEY", "SERVER_NAME", "PROFILE"):
        monkeypatch.delenv(f"SECURE_CLIENT_{name}", raising=False)
