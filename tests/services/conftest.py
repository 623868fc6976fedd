"""Shared by the tests of the services: a house that allows everything, with a second issuer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from services.partners import open_house
from services.people import Person, administrator

from support.house import House


@pytest.fixture(scope="session")
def permissive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The house. Tests make users of their own in it."""
    with open_house(tmp_path_factory.mktemp("permissive")) as house:
        yield house


@pytest.fixture(scope="session")
def permissive_admin(permissive: House) -> Person:
    return administrator(permissive, permissive.first_log_in().access_token)
