"""The types of settings, for the sections of the configuration and for authenticators."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from secure_tls.errors import SpiffeIDError
from secure_tls.spiffe import SpiffeID

_FOLDER: ContextVar[Path] = ContextVar("folder", default=Path())


@contextmanager
def relative_to(folder: Path) -> Iterator[None]:
    """Resolve relative paths against a folder while settings are read."""
    anchor = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(anchor)


def resolve(path: Path) -> Path:
    """Resolve a path of the configuration."""
    text = os.fspath(path)
    if text == "." or "\0" in text:  # pathlib's "." is also the empty text
        raise ValueError("is not the path of a file")
    try:
        return _FOLDER.get() / path.expanduser()
    except RuntimeError:
        raise ValueError("is below the home folder of a user who is not known") from None


def sentence_of(check: Callable[[str], object], text: str) -> None:
    """Turn a check's error into ``ValueError``, the only one that pydantic reports."""
    try:
        check(text)
    except SpiffeIDError as error:
        raise ValueError(str(error)) from None


_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


def _check_address(value: str) -> str:
    match = _ADDRESS.fullmatch(value)
    if match is None or int(match[1]) > 65535:
        raise ValueError("is not HOST:PORT, such as 0.0.0.0:50051 or [::]:50051")
    return value


def _check_spiffe_id(text: str) -> str:
    sentence_of(SpiffeID.parse, text)
    return text


def _check_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or parts.scheme != "https" or "@" in parts.netloc or not text.isprintable():
        raise ValueError("is not an https:// URL without user name and password")
    return text


File = Annotated[Path, AfterValidator(resolve)]
"""A path, relative to the folder of the configuration."""
Address = Annotated[str, AfterValidator(_check_address)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Word = Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,63}$")]
"""A role or a scope."""
SpiffeIDText = Annotated[str, AfterValidator(_check_spiffe_id)]
URL = Annotated[str, AfterValidator(_check_url)]
"""A URL to fetch from: https:// only."""


class Section(BaseModel):
    """One table of the configuration. An unknown key is an error."""

    # Hidden, because a mistyped value may be a secret.
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _check_no_number_is_true(cls, value: object, info: ValidationInfo) -> object:
        """Refuse booleans where numbers belong: Python would take `grace = true` for 1."""
        if (
            isinstance(value, bool)
            and cls.model_fields[str(info.field_name)].annotation is not bool
        ):
            raise ValueError("must be a number, not true or false")
        return value
