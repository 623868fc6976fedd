"""Fixtures of the audit tests."""

from __future__ import annotations

import pytest
from audit_door import STACKS


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the policy file a hundred times a second."""
    monkeypatch.setattr("secure_base.reloading.reloads.INTERVAL", 0.01)
