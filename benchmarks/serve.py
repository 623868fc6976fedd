"""One of the compared servers as a process: ``python -m benchmarks.serve SERVER FOLDER CORE``.

Prints its port and serves until standard input ends, so that none outlives the run.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.machine import move_to

if TYPE_CHECKING:
    from benchmarks.servers import Server


def main() -> None:
    """Serve as the first argument describes: a ``Server`` as JSON."""
    wanted, folder, core = json.loads(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    # Before grpc starts threads, which inherit it.
    move_to(core)
    from benchmarks.servers import Guarded, Server  # noqa: PLC0415
    from secure_server.logs import set_up_logging  # noqa: PLC0415

    set_up_logging("json", "info")
    front = wanted["front"]
    server = Server(front if isinstance(front, str) else Guarded(**front), wanted["stack"])
    if server.stack == "threads":
        _serve(server, folder)
    else:
        _serve_aio(server, folder)


def _serve(wanted: Server, folder: Path) -> None:
    from benchmarks.servers import build  # noqa: PLC0415

    server, port = build(wanted, folder)
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None).wait()


def _serve_aio(wanted: Server, folder: Path) -> None:
    from benchmarks.servers import build_aio  # noqa: PLC0415

    async def serve() -> None:
        server, port = build_aio(wanted, folder)
        await server.start()
        print(port, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await server.stop(None)

    loop_factory = None
    if wanted.stack == "asyncio + uvloop":
        import uvloop  # noqa: PLC0415 - optional

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
