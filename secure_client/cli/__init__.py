"""``secure-client``: log in, see who one is, look after users and tokens."""

import os

# gRPC reads this when it is loaded. It logs failed handshakes; what they mean is said by us.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from secure_client.cli.app import app, main

__all__ = ["app", "main"]
