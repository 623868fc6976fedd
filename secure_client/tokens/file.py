"""A token in a file that another program renews, as Kubernetes and Vault agents do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from secure_base.reloading.signature import Signature, signature
from secure_client.errors import TokenError
from secure_client.tokens.source import AccessToken

_MAX_BYTES = 65_536


class FileTokenSource:
    """Reads the access token from ``path`` (ASCII, surrounding white space ignored).

    Each call checks the file's status and reads the file if it was replaced or changed. Replace it
    by a rename: a half-written token would be sent.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._held: tuple[Signature, AccessToken] | None = None

    def __repr__(self) -> str:
        return f"FileTokenSource({str(self._path)!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A token source holds a secret and is not pickled.")

    def token(self, *, refused: AccessToken | None = None) -> AccessToken:  # noqa: ARG002 - only the file knows another
        """The token in the file now. Raises ``TokenError`` where there is none."""
        try:
            version = signature([self._path])  # before reading: a later change is then noticed
            held = self._held
            if held is not None and held[0] == version:
                return held[1]
            with self._path.open("rb") as file:
                data = file.read(_MAX_BYTES)
        except OSError as error:
            raise TokenError(
                f"The token file {self._path} cannot be read: {error.strerror}."
            ) from None
        try:
            token = AccessToken(data.decode("ascii").strip())
        except (UnicodeDecodeError, TokenError):
            token = None
        if token is None:
            raise TokenError(
                f"The token file {self._path} does not hold one access token and nothing else."
            )
        expiry = token.claims().get("exp")
        if isinstance(expiry, int | float):
            token.expires_at = expiry
        self._held = (version, token)
        return token
