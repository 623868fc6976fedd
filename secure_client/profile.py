"""Named profiles: where to connect and with what, kept in the user's configuration folder."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secure_client._private_files import read_private, write_private
from secure_client.errors import ConfigurationError, ProfileError
from secure_client.session import SessionFile

SETTINGS = ("target", "ca", "certificate", "private_key", "server_name")
"""The keys of a profile; each value is a string."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")


@dataclass(frozen=True, slots=True)
class Profile:
    """``NAME.toml`` with the connection, and the session beside it, in ``folder``."""

    name: str
    folder: Path

    @classmethod
    def named(cls, name: str | None = None, environ: Mapping[str, str] = os.environ) -> Profile:
        """The profile ``name``, or that of ``SECURE_CLIENT_PROFILE``, or ``default``.

        It lives in ``$XDG_CONFIG_HOME/secure-client`` (XDG Base Directory Specification), by
        default ``~/.config/secure-client``, and need not exist. Raises ``ConfigurationError``.
        """
        chosen = name or environ.get("SECURE_CLIENT_PROFILE") or "default"
        if not _NAME.match(chosen):
            raise ConfigurationError(
                f"{chosen!a} is no name for a profile: use at most 63 letters, digits, dashes and "
                "underscores."
            )
        base = Path(environ.get("XDG_CONFIG_HOME") or "")
        # The specification ignores a relative path.
        if not base.is_absolute():
            base = Path(environ.get("HOME") or Path.home()) / ".config"
        return cls(chosen, base / "secure-client")

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}.toml"

    @property
    def session(self) -> SessionFile:
        return SessionFile(self.folder, self.name)

    def load(self) -> dict[str, str]:
        """The settings, empty where there is no such profile.

        Raises ``ProfileError`` for a file that others can write, that is no TOML or that has a key
        or value which does not belong there.
        """
        # It names the trusted CA: other users may read it, never write it.
        data = read_private(self.path, forbidden=0o022)
        if data is None:
            return {}
        try:
            found = tomllib.loads(data.decode())
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ProfileError(f"{self.path} is no TOML: {error}.", self.path) from None
        for key, value in found.items():
            if key not in SETTINGS or not isinstance(value, str):
                raise ProfileError(
                    f"{self.path}: {key!a} does not belong there. Known are {', '.join(SETTINGS)}, "
                    "each a text.",
                    self.path,
                )
        return found

    def save(self, settings: Mapping[str, str]) -> None:
        """Replace the profile's settings. Raises ``ProfileError``."""
        lines = [f"{key} = {_quoted(settings[key])}\n" for key in SETTINGS if key in settings]
        write_private(self.path, "".join(lines).encode())


def _quoted(text: str) -> str:
    # A JSON string is a TOML basic string, but for DEL (TOML 1.0.0, "String").
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
