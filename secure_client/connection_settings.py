"""Where to connect and with what: from flags, the environment, a profile, defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from secure_client.channel import connect
from secure_client.errors import ConfigurationError
from secure_client.profile import SETTINGS, Profile

if TYPE_CHECKING:
    import grpc

    from secure_client.tokens.source import TokenSource

DEFAULT_TARGET = "localhost:50051"
_DEFAULT_FILES = {
    "ca": "certs/ca.pem",
    "certificate": "certs/clients/admin.pem",
    "private_key": "certs/clients/admin.key",
}


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """The settings of one connection; the files are PEM. See ``connect``."""

    target: str
    ca: Path
    certificate: Path | None = None
    private_key: Path | None = None
    server_name: str | None = None

    def open(self, tokens: TokenSource | None = None, *, timeout: float = 30.0) -> grpc.Channel:
        """A channel with these settings; raises as ``connect``. ``timeout`` is in seconds."""
        return connect(
            self.target,
            ca=self.ca,
            certificate=self.certificate,
            private_key=self.private_key,
            tokens=tokens,
            server_name=self.server_name,
            timeout=timeout,
        )

    def settings(self) -> dict[str, str]:
        """The settings to save in a profile; paths are made absolute."""
        kept = {
            "target": self.target,
            "ca": self.ca.absolute(),
            "certificate": self.certificate and self.certificate.absolute(),
            "private_key": self.private_key and self.private_key.absolute(),
            "server_name": self.server_name,
        }
        return {key: str(value) for key, value in kept.items() if value}


def find_connection(
    flags: Mapping[str, str | None] | None = None,
    *,
    profile: Profile | None = None,
    environ: Mapping[str, str] = os.environ,
    folder: Path | None = None,
) -> ConnectionSettings:
    """The settings in force: ``flags``, else ``SECURE_CLIENT_…``, else the profile, else defaults.

    Certificate and private key are taken from the same layer. The defaults
    are ``localhost:50051`` and, where they exist in ``folder`` (by default the current one),
    ``certs/ca.pem``, ``certs/clients/admin.pem`` and ``certs/clients/admin.key``.

    Raises ``ConfigurationError`` for half a pair and where there is no CA, and ``ProfileError``.
    """
    chosen = profile or Profile.named(environ=environ)
    layers = (
        _present(flags or {}),
        _present({key: environ.get(f"SECURE_CLIENT_{key.upper()}") for key in SETTINGS}),
        chosen.load(),
        _defaults(folder or Path()),
    )
    found: dict[str, str] = {}
    for layer in layers:
        taken = dict(layer)
        if "certificate" in found:
            taken.pop("certificate", None)
            taken.pop("private_key", None)
        elif ("certificate" in taken) != ("private_key" in taken):
            raise ConfigurationError(
                "A certificate and its private key go together: give --certificate and "
                "--private-key both in the same place, or neither."
            )
        found = taken | found
    if "ca" not in found:
        raise ConfigurationError(
            "There is no CA to verify the server by: give --ca FILE, set SECURE_CLIENT_CA, or run "
            f"this where {_DEFAULT_FILES['ca']} is."
        )
    return ConnectionSettings(
        target=found["target"],
        ca=Path(found["ca"]),
        certificate=_path(found.get("certificate")),
        private_key=_path(found.get("private_key")),
        server_name=found.get("server_name"),
    )


def _present(layer: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in layer.items() if value}


def _defaults(folder: Path) -> dict[str, str]:
    files = {key: folder / name for key, name in _DEFAULT_FILES.items()}
    found = {key: str(path) for key, path in files.items() if path.exists()}
    if not {"certificate", "private_key"} <= found.keys():
        found.pop("certificate", None)
        found.pop("private_key", None)
    return {"target": DEFAULT_TARGET, **found}


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
