"""Which configuration a command reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from secure_server.config import Config

_DEFAULT_FILE = Path("secure-server.toml")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="The TOML file. Without it secure-server.toml in the current folder, if there is one, "
        "and the defaults otherwise.",
    ),
]


def read_settings(config: Path | None) -> Config:
    """Read what ``ConfigOption`` was given. Raises ``ConfigError``."""
    from secure_server.config import read_config

    return read_config(found_file(config))


def found_file(config: Path | None) -> Path | None:
    """Return the file that ``ConfigOption`` stands for, None for the defaults."""
    return _DEFAULT_FILE if config is None and _DEFAULT_FILE.is_file() else config
