"""Shared by all tests: one running server a worker, and its administrator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from secure_server.users import passwords
from support.house import House, running_house

# From now on, not from the first test that asks for ``log``: that would not hear a logger which was
# made before logging was configured.
structlog.configure(processors=list(structlog.get_config()["processors"]))


SHIPPED_COST = passwords._OWASP


@pytest.fixture(scope="session", autouse=True)
def weak_hashes() -> Iterator[None]:
    """Servers in this process hash passwords at a small cost.

    The shipped one is a tenth of a second of a core, and the suite computes a thousand hashes.
    Commands in processes of their own have the shipped one.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_OWASP", passwords._WEAK)
        yield


@pytest.fixture
def real_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is built from now on hashes passwords at the shipped cost."""
    monkeypatch.setattr(passwords, "_OWASP", SHIPPED_COST)


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server that tests share: they may add to it, not change what others rely on."""
    settings = (
        '[[workloads]]\nspiffe_id = "spiffe://example.org/client/workload"\n'
        'scopes = ["introspect", "other"]\n'
    )
    with running_house(tmp_path_factory.mktemp("house"), settings) as house:
        yield house


@pytest.fixture(scope="session")
def admin_token(house: House) -> str:
    """An access token of the first administrator, over the certificate of ``house.admin``."""
    return house.first_log_in().access_token


@pytest.fixture
def log() -> Iterator[list[dict[str, object]]]:
    """What is logged while the test runs, by whichever thread."""
    with structlog.testing.capture_logs() as lines:
        yield lines  # type: ignore[misc]
