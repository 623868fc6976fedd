"""Repeat a handshake with Python's TLS, which reports failures more exactly than gRPC.

With several addresses gRPC reports the last failure only, and a refused client certificate as a
closed socket. Only the handshake is sent.
"""

import re
import socket
import ssl
from contextlib import suppress
from ipaddress import ip_address

from secure_client.connection_settings import ConnectionSettings

# Seconds for each step.
_PATIENCE = 3.0

_TARGET = re.compile(
    r"(?:dns:(?://[^/]*/)?)?(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:/\[\]]+)):(?P<port>\d+)\Z"
)


def probe(connection: ConnectionSettings) -> str | None:
    """The failure of a handshake, as OpenSSL or the system names it; None where it has no name.

    Empty when the handshake succeeds.
    """
    found = _TARGET.match(connection.target)
    if found is None:
        return None
    host = found["six"] or found["host"]
    try:
        connected = socket.create_connection((host, int(found["port"])), timeout=_PATIENCE)
    except (OSError, OverflowError, UnicodeError) as error:
        return str(error)
    with connected:
        try:
            return _shake_hands(connected, connection, connection.server_name or host)
        except ssl.SSLCertVerificationError as error:
            return f"CERTIFICATE_VERIFY_FAILED: {error.verify_message}"
        except ssl.SSLError as error:
            return error.reason or str(error)
        except OSError as error:
            return str(error) or "timed out"


def _shake_hands(connected: socket.socket, connection: ConnectionSettings, name: str) -> str:
    context = ssl.create_default_context(cafile=str(connection.ca))
    context.set_alpn_protocols(["h2"])
    if connection.certificate is not None and connection.private_key is not None:
        context.load_cert_chain(connection.certificate, connection.private_key)
    with suppress(ValueError):
        # OpenSSL knows no addresses in brackets or with leading zeros.
        name = str(ip_address(name))
    with context.wrap_socket(connected, server_hostname=name) as secured:
        # In TLS 1.3 the server judges the client's certificate after the handshake: its verdict
        # is the first thing to read, HTTP/2 settings or an alert (RFC 8446, section 4.4.2.4).
        return "" if secured.recv(1) else "Socket closed"
