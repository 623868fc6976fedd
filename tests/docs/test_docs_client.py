"""docs/client.md: its programs call while a certificate is renewed, and watch what is changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import IO

from test_docs_run import SECONDS, blocks, clone, environment, free_port, make_run

__all__ = ["clone"]

BLOCKS = {block.mark: block.text for block in blocks("docs/client.md")}


def test_the_programs_do_what_the_document_says(clone: Path) -> None:
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
                assert line_of(program.stdout) == "calling as users/admin\n"
            watchers = [
                start(clone, more, "watch", port),
                piped(BLOCKS["command"].split(), clone, more),
            ]
            programs += watchers
            assert line_of(watchers[0].stdout) == "CHANGE_WATCHING \n"
            assert line_of(watchers[1].stderr).startswith("Watching the users of localhost")
            run("secure-client users create bob")
            assert line_of(watchers[0].stdout) == "CHANGE_CREATED users/bob\n"
            assert line_of(watchers[1].stdout).split()[1:3] == ["created", "users/bob"]
            run(BLOCKS["renew"])
            for program in programs[:2]:
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
    return piped([sys.executable, "-W", "error", f"{name}_shown.py"], clone, more)


def line_of(output: IO[str] | None) -> str:
    assert output is not None
    return output.readline()


def piped(command: list[str], clone: Path, more: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=clone,
        env=more,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
