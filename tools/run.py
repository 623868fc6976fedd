#!/usr/bin/env python3
"""Serve in the foreground with development certificates, made where they are missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

NEXT = """
Serving with development certificates. In another terminal, in this folder:

  . .venv/bin/activate
  secure-client login admin       # password: {password}
  secure-client whoami
  secure-client users create alice --email alice@example.org
  secure-client users list
  grpcurl -cacert certs/ca.pem -cert certs/clients/admin.pem -key certs/clients/admin.key \\
    -H "authorization: Bearer $(secure-client token)" localhost:50051 list

Ctrl-C stops it. The configuration is secure-server.toml.
"""


def run(*command: str | Path) -> None:
    """Run a command in the clone; exit with its status where it fails."""
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status:
        sys.exit(status)


def main() -> None:
    """Make missing certificates, print what to type next, and exec the server."""
    secret = ROOT / "state" / "bootstrap-secret"
    run(sys.executable, ROOT / "tools" / "gen_certs.py")
    if not (ROOT / "state" / "secure-grpc.db").exists():
        run(BIN / "secure-server", "bootstrap", "--secret-file", secret)
    hint = "the one you chose at the first log-in"
    if secret.exists():
        hint = f"the line in {secret.relative_to(ROOT)}; it works once, then yours"
    print(NEXT.format(password=hint), flush=True)
    os.chdir(ROOT)
    os.execv(BIN / "secure-server", ["secure-server", "serve"])


if __name__ == "__main__":
    main()
