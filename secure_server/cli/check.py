"""``secure-server check``: what a start would say, before it is one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from secure_server.cli.configured import ConfigOption, found_file, read_settings
from secure_server.cli.output import as_json, fail, line


def check(
    config: ConfigOption = None,
    own_servicer: Annotated[
        bool,
        typer.Option(
            "--own-servicer",
            help="Check a file of Guard.from_config, for the guard before a servicer of your own.",
        ),
    ] = False,
    as_json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a start would, and ask the issuers; exit status 1 where the start would fail.

    It opens nothing for writing, and makes neither store nor keys.
    """
    from secure_server.logs import set_up_logging

    set_up_logging("auto", "error")  # what else there is to say is in the findings
    if own_servicer:
        from secure_server.config import read_guard_config
        from secure_server.guard.check import check_guard

        findings = list(check_guard(read_guard_config(_file(config))))
    else:
        settings = read_settings(config)
        from secure_server.app.check import check_service

        findings = list(check_service(settings))
    if as_json_:
        as_json([dataclasses.asdict(finding) for finding in findings])
    else:
        for finding in findings:
            line(f"{finding.state:<4}  {finding.about}: {finding.text}")
    if any(finding.state == "FAIL" for finding in findings):
        raise typer.Exit(1)


def _file(config: Path | None) -> Path:
    file = found_file(config)
    if file is None:
        raise fail("A guard of your own has a file: name it with --config.")
    return file
