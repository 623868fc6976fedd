"""docs/client.md: its programs call while a certificate is renewed, on threads and on asyncio."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from test_docs_run import SECONDS, blocks, clone, environment, free_port, make_run

__all__ = ["clone"]

BLOCKS = {block.mark: block.text for block in blocks("docs/client.md")}


def test_the_programs_do_what_is_said(clone: Path) -> None:
    port = free_port()
    more = environment(clone, SECURE_CLIENT_TARGET=f"localhost:{port}")

    def run(script: str) -> None:
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=clone,
            env=more,
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
            check=True,
        )

    (clone / "mine").write_text("a password of my own\n")
    with make_run(clone, port):
        run(
            "secure-client login admin --password-file state/bootstrap-secret "
            "--new-password-file mine"
        )
        programs = [start(clone, more, name, port) for name in ("threads", "asyncio")]
        try:
            for program in programs:
                assert program.stdout is not None
                assert program.stdout.readline() == "calling as users/admin\n"
            run(BLOCKS["renew"])
            for program in programs:
                rest, errors = program.communicate(timeout=SECONDS)
                assert rest == "a new certificate, and no call has failed\n"
                assert (program.returncode, errors) == (0, "")
        finally:
            for program in programs:
                program.kill()
                program.communicate()


def start(clone: Path, more: dict[str, str], name: str, port: int) -> subprocess.Popen[str]:
    text = BLOCKS[name].replace("localhost:50051", f"localhost:{port}")
    (clone / f"{name}_shown.py").write_text(text)
    return subprocess.Popen(
        [sys.executable, "-W", "error", f"{name}_shown.py"],
        cwd=clone,
        env=more,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
