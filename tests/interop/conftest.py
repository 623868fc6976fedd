"""The real server, for clients in other languages."""

import pytest

from support.running import running_server


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(scope="module")
def token(running):
    return running.admin_token()
