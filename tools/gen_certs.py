#!/usr/bin/env python3
"""Make, renew, revoke and check certificates: the installed ``secure-certs``, from a bare clone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

_NEEDED = {"cryptography", "rich", "typer"}

try:
    import rich  # noqa: F401 - imported late, for a table on a terminal

    from secure_tls.cli import main
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in _NEEDED:
        raise
    print(
        f"Error: {error.name} is not installed: run python -m pip install cryptography rich typer.",
        file=sys.stderr,
    )
    sys.exit(2)

if __name__ == "__main__":
    main()
