"""``secure-server``: one file a command; each imports what it needs when it runs."""

import sys

from secure_server.standard_files import open_missing

if None in (sys.stdin, sys.stdout, sys.stderr):
    open_missing()

from secure_server.cli.app import main

__all__ = ["main"]
