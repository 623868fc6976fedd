"""X.509 only: peer identities, certificate files, path validation, revocation, a small CA."""

from secure_tls.authority import MAX_LEAF_LIFETIME, Authority, Issued
from secure_tls.errors import (
    AuthorityError,
    PeerError,
    RevocationListError,
    SpiffeIDError,
    TLSError,
    TLSFileError,
)
from secure_tls.files import (
    ClientTLSFiles,
    TLSFiles,
    find_ca_key,
    read_client_files,
    read_server_files,
)
from secure_tls.keys import KeyType
from secure_tls.lists import RevocationLists
from secure_tls.paths import Verdict, judge_client
from secure_tls.peer import Peer, parse_peer
from secure_tls.spiffe import SpiffeID, check_trust_domain
from secure_tls.template import Template
from secure_tls.trust import Trust

__all__ = [
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
