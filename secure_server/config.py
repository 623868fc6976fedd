"""The configuration: one TOML file, the environment over it, defaults that run.

An unknown key refuses to start: a misspelt limit would otherwise be no limit.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from secure_tls.errors import SpiffeIDError
from secure_tls.spiffe import SpiffeID, check_trust_domain

ENVIRONMENT = "SECURE_SERVER_"
"""``SECURE_SERVER_TLS__CLIENT_CA`` is ``client_ca`` of ``[tls]``."""


class ConfigError(Exception):
    """The configuration cannot be used; the message names the file, the line and the key."""


_FOLDER: ContextVar[Path] = ContextVar("folder", default=Path())
"""From where relative paths count while a configuration is read."""


def _resolve(path: Path) -> Path:
    text = os.fspath(path)
    if text == "." or "\0" in text:  # pathlib's "." is also the empty text
        raise ValueError("is not the path of a file")
    return _FOLDER.get() / path.expanduser()


File = Annotated[Path, AfterValidator(_resolve)]


_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


def _check_address(value: str) -> str:
    match = _ADDRESS.fullmatch(value)
    if match is None or int(match[1]) > 65535:
        raise ValueError("is not HOST:PORT, such as 0.0.0.0:50051 or [::]:50051")
    return value


Address = Annotated[str, AfterValidator(_check_address)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Word = Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,63}$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _check_no_number_is_true(cls, value: object, info: ValidationInfo) -> object:
        """Refuse what Python would take for 1: `grace = true` is a misunderstanding."""
        if (
            isinstance(value, bool)
            and cls.model_fields[str(info.field_name)].annotation is not bool
        ):
            raise ValueError("is not for true or false")
        return value


class ServerSection(_Section):
    """``[server]``: where to listen, and how much at once."""

    listen: Address = "127.0.0.1:50051"
    grace: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """Seconds that calls in flight get when the server stops."""
    reflection: bool = True
    """Serve gRPC reflection, to those whom the policy allows it."""
    door_threads: Annotated[int, Field(ge=2, le=4096)] = 128
    """Decisions and unary calls at once."""
    stream_threads: Annotated[int, Field(ge=1, le=65536)] = 256
    """Open streams at once; one more is RESOURCE_EXHAUSTED."""
    max_message_bytes: Annotated[int, Field(ge=1024, le=2**31 - 1)] = 4 * 1024 * 1024
    """A larger message is RESOURCE_EXHAUSTED, before and after decompression."""


class TLSSection(_Section):
    """``[tls]``: our certificate, and whom we let connect."""

    certificate: File = Path("certs/server.pem")
    private_key: File = Path("certs/server.key")
    client_ca: File = Path("certs/ca.pem")
    crl: File | None = None
    trust_domains: Annotated[list[str], Field(min_length=1)] = ["example.org"]
    """SPIFFE trust domains whose members may connect."""
    minimum_version: Literal["1.2", "1.3"] = "1.3"
    allow_readable_private_key: bool = False
    """Start although others on this machine can read the private key."""

    @field_validator("trust_domains")
    @classmethod
    def _check_trust_domains(cls, domains: list[str]) -> list[str]:
        for domain in domains:
            _speak(check_trust_domain, domain)
        return domains


class TokensSection(_Section):
    """``[tokens]``: what we vouch for."""

    issuer: Name = "https://secure-grpc.example.org"
    audience: Name = "secure-grpc"
    signing_key: File = Path("state/signing-key.pem")
    """Made on first start."""
    key_set: File | None = None
    """For ``Guard.from_config``: the issuer's public keys, where the issuer is another server."""
    access_token_lifetime: Annotated[int, Field(ge=30, le=3600)] = 600
    """Seconds."""
    session_idle_lifetime: Annotated[int, Field(ge=60)] = 7 * 86400
    """Seconds after which a refresh token that is not used ends."""
    session_lifetime: Annotated[int, Field(ge=60)] = 30 * 86400
    """Seconds after which a session ends, however busy."""


class WorkloadSection(_Section):
    """``[[workloads]]``: who gets a token by its client certificate alone."""

    spiffe_id: str
    roles: list[Word] = []
    scopes: list[Word] = []

    @field_validator("spiffe_id")
    @classmethod
    def _check_spiffe_id(cls, text: str) -> str:
        _speak(SpiffeID.parse, text)
        return text


class StoreSection(_Section):
    """``[store]``: what is remembered, and where."""

    url: str = "sqlite:///state/secure-grpc.db"

    @field_validator("url")
    @classmethod
    def _resolve_sqlite(cls, url: str) -> str:
        """Let ``sqlite:///FILE`` count from the configuration's folder; ``sqlite:////`` is /."""
        prefix = "sqlite:///"
        if not url.startswith(prefix) or not url.removeprefix(prefix):
            raise ValueError(
                f"is not sqlite:///FILE, the only kind of store there is (scheme "
                f"{urlsplit(url).scheme!r})"
            )
        return prefix + str(_resolve(Path(url.removeprefix(prefix))).absolute())


class PolicySection(_Section):
    """``[policy]``: who may call what."""

    file: File | None = None
    """gRFC A43 JSON; without it the policy that is shipped with the server."""


class HTTPSection(_Section):
    """``[http]``: /healthz, /metrics and /.well-known/jwks.json, in the clear; off by default."""

    listen: Address | None = None


class LogSection(_Section):
    """``[log]``: to standard error."""

    format: Literal["auto", "json", "text"] = "auto"
    """``auto`` is text on a terminal and JSON elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(BaseSettings):
    """All of it. Read one with ``read_config``."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=ENVIRONMENT, env_nested_delimiter="__"
    )

    server: ServerSection = Field(default_factory=ServerSection)
    tls: TLSSection = Field(default_factory=TLSSection)
    tokens: TokensSection = Field(default_factory=TokensSection)
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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is the library's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment over the file."""
        return env_settings, init_settings


def read_config(path: Path | None) -> Config:
    """Read the file, lay the environment over it, and check everything.

    Relative paths count from the folder of the file; without a file, from the current one.
    Raises ``ConfigError``.
    """
    text = "" if path is None else _read(path)
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}.") from None
    _check_environment()
    anchor = _FOLDER.set(Path() if path is None else path.parent)
    try:
        return Config(**settings)
    except ValidationError as error:
        raise ConfigError(_explain(error, path, text)) from None
    except SettingsError:
        raise ConfigError(
            f"The environment: {' or '.join(_unreadable_variables())} cannot be read: lists and "
            "whole sections are written as JSON."
        ) from None
    finally:
        _FOLDER.reset(anchor)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}. Name another with --config.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8.") from None


def _check_environment() -> None:
    for name in os.environ:
        if name.startswith(ENVIRONMENT) and not _is_known(name.removeprefix(ENVIRONMENT).lower()):
            raise ConfigError(
                f"The environment variable {name} names no setting; they are "
                f"{ENVIRONMENT}SECTION__KEY, such as {ENVIRONMENT}SERVER__LISTEN. Unset it."
            )


def _is_known(name: str) -> bool:
    section, _, key = name.partition("__")
    field = Config.model_fields.get(section)
    if field is None:
        return False
    kind = field.annotation
    return not key if not isinstance(kind, type) else key in getattr(kind, "model_fields", {})


def _unreadable_variables() -> Iterator[str]:
    """Find those that should hold JSON and do not; pydantic-settings names the section alone."""
    for name, value in os.environ.items():
        section, _, key = name.removeprefix(ENVIRONMENT).lower().partition("__")
        if not name.startswith(ENVIRONMENT) or section not in Config.model_fields:
            continue
        field = Config.model_fields[section]
        kind = field.annotation
        if key and isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields[key]
        if not key or get_origin(field.annotation) is list:
            try:
                json.loads(value)
            except ValueError:
                yield name


def _explain(error: ValidationError, path: Path | None, text: str) -> str:
    """Write one line a problem: where, which key, what is wrong."""
    lines = []
    for problem in error.errors(include_input=False, include_url=False):
        location = problem["loc"]
        variable = ENVIRONMENT + "__".join(str(part).upper() for part in location)
        if variable in os.environ:
            where = f"environment: {variable}"
        else:
            line = _line_of(text, location)
            key = ".".join(str(part) for part in location)
            where = f"{path or 'defaults'}{f':{line}' if line else ''}: {key}"
        lines.append(f"{where} {_sentence(problem, location)}")
    return "\n".join(lines)


def _sentence(problem: Any, location: tuple[int | str, ...]) -> str:
    if problem["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
        return f"is not a setting; {hint}"
    message = str(problem["msg"]).removeprefix("Value error, ").removesuffix(".")
    return f"{message}." if message.startswith("is ") else f"is wrong: {message}."


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    if not location:
        return list(Config.model_fields)
    if location[0] == "workloads":
        return list(WorkloadSection.model_fields)
    kind = Config.model_fields[str(location[0])].annotation
    return list(getattr(kind, "model_fields", {}))


_TABLE = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+)(?:\s*\.\s*[A-Za-z0-9_-]+)*\s*=")


def _line_of(text: str, location: tuple[int | str, ...]) -> int | None:
    """Find the line of a setting, or of its table where it has none. tomllib keeps no positions."""
    table: tuple[int | str, ...] = ()
    seen: dict[str, int] = {}
    best: int | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if match := _TABLE.fullmatch(line):
            name = match[2]
            if match[1] == "[[":
                table = (name, seen.get(name, 0))
                seen[name] = seen.get(name, 0) + 1
            else:
                table = tuple(name.split("."))
            if table == location[: len(table)] or (
                best is None and table[: len(location)] == location
            ):
                best = number
        elif (match := _KEY.match(line)) and (*table, match[1]) == location[: len(table) + 1]:
            return number
    return best


def _speak(check: Callable[[str], object], text: str) -> None:
    """Hand on the sentence of a check; pydantic listens to ``ValueError`` alone."""
    try:
        check(text)
    except SpiffeIDError as error:
        raise ValueError(str(error)) from None
