"""A channel seen from outside: its certificate, its connections."""

import base64
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import load_pem_x509_certificate

from secure_base.reloading import signature


def thumbprint(certificate_pem):
    digest = load_pem_x509_certificate(certificate_pem).fingerprint(hashes.SHA256())
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def connections(port):
    """How many connections to this port this process has open, as the kernel counts them."""
    rows = []
    for table in ("tcp", "tcp6"):
        text = Path(f"/proc/self/net/{table}").read_text()
        rows += [line.split() for line in text.splitlines()[1:]]
    established = "01"
    return sum(row[2].endswith(f":{port:04X}") and row[3] == established for row in rows)


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr("secure_client._files.FOLLOWER._interval", 0.01)


def let_pass(files, seconds):
    """Have the clock of these files go on."""
    before = files._status._clock
    files._status._clock = lambda: before() + seconds


def settle(files):
    """Wait until the files are older than a tick of the clock that they are stamped by."""
    paths = files._endpoint.paths
    until(lambda: signature(paths) == signature(paths))
