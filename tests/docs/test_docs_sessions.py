"""docs/sessions.md: its commands against a server, and its program hears of a revocation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from test_docs_run import SECONDS, blocks, clone, environment, free_port, make_run

__all__ = ["clone"]

BLOCKS = {block.mark: block.text for block in blocks("docs/sessions.md")}

ALICE = """
export SECURE_CLIENT_PROFILE=alice
secure-client login alice --password-file secret --new-password-file mine >&2
secure-client token
"""


def test_the_shown_commands_do_what_the_document_says(clone: Path) -> None:
    port = free_port()
    more = environment(clone, SECURE_CLIENT_TARGET=f"localhost:{port}")

    def run(script: str) -> str:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=clone,
            env=more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        ).stdout

    (clone / "mine").write_text("a password of my own\n")
    (clone / "secret").write_text("an initial password\n")
    with make_run(clone, port):
        run(
            "secure-client login admin --password-file state/bootstrap-secret "
            "--new-password-file mine\nsecure-client users create alice --password-file secret"
        )
        run(ALICE)
        assert len(run(BLOCKS["own"]).splitlines()) == 2  # the head and the one session
        run(BLOCKS["revoke"])
        assert len(run("secure-client sessions list --user alice").splitlines()) == 1

        token = run(ALICE.replace("secret", "mine").replace(" --new-password-file mine", ""))
        (clone / "snippet.py").write_text(BLOCKS["python"])
        with subprocess.Popen(
            [sys.executable, "snippet.py", token.strip()],
            cwd=clone,
            env=more,
            stdout=subprocess.PIPE,
            text=True,
        ) as gateway:
            assert gateway.stdout is not None
            assert gateway.stdout.readline() == "cart-17 True\n"
            run("secure-client tokens revoke --user alice")
            assert gateway.stdout.readline() == "cart-17 False\n"
            assert gateway.wait(SECONDS) == 0
