"""``secure-server serve``: run the server until it is told to stop."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secure_server.cli.configured import ConfigOption, read_settings
from secure_server.cli.output import write_whole

if TYPE_CHECKING:
    from secure_server.config import Config

_END = (signal.SIGTERM, signal.SIGINT)

_LONGER = 10.0
"""Seconds beyond the grace that a stop may take: audit loggers get five of them."""

_MOMENT = 1.0
"""Seconds in which the threads of a server that has stopped must have ended."""


def serve(
    config: ConfigOption = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(help="Write the bound address, HOST:PORT, to this file once serving."),
    ] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; calls in flight get `[server] grace` seconds to finish."""
    # Blocked in every thread and waited for here: one that a handler had to take between two
    # instructions could come just before the wait and be lost, or in its middle and lock it up.
    signal.pthread_sigmask(signal.SIG_BLOCK, _END)
    from secure_server import descriptors
    from secure_server.last_resort import end_within
    from secure_server.logs import set_up_logging
    from secure_server.standard_error import captured

    settings = read_settings(config)
    set_up_logging(settings.log.format, settings.log.level)
    with captured():
        descriptors.raise_limit()
        _run(settings, ready_file)
    end_within(_MOMENT, status=0)  # all that had to be done is done


def _run(settings: Config, ready_file: Path | None) -> None:
    from secure_server import descriptors
    from secure_server.app.lifecycle import Server
    from secure_server.last_resort import end_within

    server = Server(settings)
    try:
        server.start()
        descriptors.log_limit()
        if ready_file is not None:
            write_whole(ready_file, server.address + "\n")
        signal.sigwait(_END)
        # A second signal ends the process at once.
        for number in _END:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _END)
    finally:
        end_within(settings.server.grace + _LONGER, status=1)
        server.stop()
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
