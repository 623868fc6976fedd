"""The public names, pinned."""

import subprocess
import sys

import secure_tls


def test_the_public_names_are_these():
    assert secure_tls.__all__ == [
        "MAX_LEAF_LIFETIME",
        "Authority",
        "AuthorityError",
        "ClientTLSFiles",
        "Issued",
        "KeyType",
        "Peer",
        "PeerError",
        "RevocationListError",
        "RevocationLists",
        "SpiffeID",
        "SpiffeIDError",
        "TLSError",
        "TLSFileError",
        "TLSFiles",
        "Template",
        "Trust",
        "Verdict",
        "check_trust_domain",
        "find_ca_key",
        "judge_client",
        "parse_peer",
        "read_client_files",
        "read_server_files",
    ]
    assert all(hasattr(secure_tls, name) for name in secure_tls.__all__)


def test_nothing_but_cryptography_is_imported():
    script = "import sys, secure_tls; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    roots = {name.partition(".")[0] for name in result.stdout.split()}
    assert not roots & {"grpc", "jwt", "typer", "rich", "secure_server", "secure_client"}
