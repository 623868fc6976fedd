"""``secure-client``: log in, manage users and tokens."""

import os

# gRPC reads this when it is loaded. It logs failed handshakes, which `failures` explains.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from secure_client.cli.app import app, main

__all__ = ["app", "main"]
