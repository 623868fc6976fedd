"""The configuration: one TOML file, the environment over it, defaults that run.

An unknown key refuses to start: a misspelt limit would otherwise be no limit. So does a key that
the way of starting has no use for.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_origin

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, field_validator
from pydantic.fields import FieldInfo

from secure_server.auth.plugin import find_type
from secure_server.config_errors import ENVIRONMENT, explain, place_of
from secure_server.config_uses import GUARD, SERVICE, Use
from secure_server.fields import relative_to
from secure_server.sections import (
    OWN_TOKENS,
    AuthenticatorSection,
    HTTPSection,
    LogSection,
    PolicySection,
    ServerSection,
    StoreSection,
    TLSSection,
    TokensSection,
    WorkloadSection,
    read_authenticator,
)


class ConfigError(Exception):
    """The configuration cannot be used; the message names the file, the line and the key."""


class Config(BaseModel):
    """All of it. Read one with ``read_config``."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True
    )

    server: ServerSection = Field(default_factory=ServerSection)
    tls: TLSSection = Field(default_factory=TLSSection)
    tokens: TokensSection = Field(default_factory=TokensSection)
    authenticators: Annotated[
        list[Annotated[AuthenticatorSection, PlainValidator(read_authenticator)]],
        Field(min_length=1),
    ] = [OWN_TOKENS]
    workloads: list[WorkloadSection] = []
    store: StoreSection = Field(default_factory=StoreSection)
    policy: PolicySection = Field(default_factory=PolicySection)
    http: HTTPSection = Field(default_factory=HTTPSection)
    log: LogSection = Field(default_factory=LogSection)

    @field_validator("workloads")
    @classmethod
    def _check_workloads(cls, workloads: list[WorkloadSection]) -> list[WorkloadSection]:
        """Refuse a second table for one workload: which of them counts would be a riddle."""
        names = [workload.spiffe_id for workload in workloads]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"is ambiguous: {twice[0]} stands there twice")
        return workloads


def read_config(path: Path | None, use: Use = SERVICE) -> Config:
    """Read the file, lay the environment over it, and check everything.

    Relative paths count from the folder of the file; without a file, from the current one. A key
    that is set and that the ``use`` refuses is an error. Raises ``ConfigError``.
    """
    text = "" if path is None else _read(path)
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}.") from None
    except RecursionError:
        raise ConfigError(f"{path}: not TOML that can be read: it is nested too deeply.") from None
    _lay_environment_over(settings)
    try:
        with relative_to(Path() if path is None else path.parent):
            config = Config(**settings)
    except ValidationError as error:
        raise ConfigError(explain(error, path, text, known_keys(settings))) from None
    refused = {**use.refused, **({} if config.tokens.key_set else use.without_key_set)}
    lines = [
        f"{place_of((section, key), path, text)} is not for {use.name}: {refused[name]}."
        for section, table in settings.items()
        for key in (table if isinstance(table, dict) else ())
        if (name := f"{section}.{key}") in refused
    ]
    if lines:
        raise ConfigError("\n".join(lines))
    return config


def read_guard_config(path: Path) -> Config:
    """Read the file of a guard before a servicer of one's own. Raises ``ConfigError``."""
    config = read_config(path, GUARD)
    if config.policy.file is None:
        raise ConfigError(
            f"{path}: policy.file is missing: the policy that comes with the server is about its "
            "own methods and would deny all of yours."
        )
    return config


def known_keys(settings: dict[str, Any]) -> Callable[[tuple[int | str, ...]], list[str]]:
    """Return what lists the keys that a table of these settings may have."""

    def known(location: tuple[int | str, ...]) -> list[str]:
        match location:
            case ():
                return list(Config.model_fields)
            case ("workloads", *_):
                return list(WorkloadSection.model_fields)
            case ("authenticators", int(number), *_):
                kind = find_type(settings["authenticators"][number]["type"])
                return ["type", "name", *kind.settings.model_fields]
        return list(_keys_of(str(location[0])))

    return known


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}. Name another with --config.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8.") from None


def _keys_of(section: str) -> dict[str, FieldInfo]:
    return getattr(Config.model_fields[section].annotation, "model_fields", {})


def _lay_environment_over(settings: dict[str, Any]) -> None:
    """Put ``SECURE_SERVER_SECTION__KEY`` in place of what the file says, whole sections first."""
    names = [name for name in os.environ if name.startswith(ENVIRONMENT)]
    for name in sorted(names, key=lambda name: ("__" in name, name)):
        section, _, key = name.removeprefix(ENVIRONMENT).lower().partition("__")
        if section not in Config.model_fields or (key and key not in _keys_of(section)):
            raise ConfigError(
                f"The environment variable {name} names no setting; they are "
                f"{ENVIRONMENT}SECTION__KEY, such as {ENVIRONMENT}SERVER__LISTEN. Unset it."
            )
        value: Any = os.environ[name]
        is_text = key and get_origin(_keys_of(section)[key].annotation) not in {list, dict}
        if not is_text:
            value = _json(name, value)
        table = settings.get(section)
        if not key and isinstance(value, dict) and isinstance(table, dict):
            settings[section] = {**table, **value}
        elif not key:
            settings[section] = value
        elif isinstance(table, dict):
            table[key] = value
        elif table is None:
            settings[section] = {key: value}


def _json(name: str, value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ConfigError(
            f"The environment: {name} cannot be read: lists and whole sections are written as JSON."
        ) from None
