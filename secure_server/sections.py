"""The tables of the configuration, and what each key may say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from secure_server.auth.local_issuer import LOCAL_ISSUER, LocalIssuerSettings
from secure_server.auth.plugin import AuthenticatorType, find_type
from secure_server.fields import (
    Address,
    File,
    Name,
    Section,
    SpiffeIDText,
    Word,
    resolve,
    sentence_of,
)
from secure_server.limits import Limits
from secure_tls.spiffe import check_trust_domain


class ServerSection(Section):
    """``[server]``: where to listen, and how much at once."""

    listen: Address = "127.0.0.1:50051"
    grace: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """Seconds that calls in flight get when the server stops."""
    retire: Annotated[float, Field(ge=1, le=86400)] = 600.0
    """Seconds that connections under a replaced certificate get until they are closed."""
    reflection: bool = True
    """Serve gRPC reflection, to those whom the policy allows it."""
    door_threads: Annotated[int, Field(ge=2, le=4096)] = 128
    """Decisions and unary calls at once."""
    stream_threads: Annotated[int, Field(ge=1, le=65536)] = 256
    """Open streams at once; one more is RESOURCE_EXHAUSTED."""
    max_message_bytes: Annotated[int, Field(ge=1024, le=2**31 - 1)] = 4 * 1024 * 1024
    """A larger message is RESOURCE_EXHAUSTED, before and after decompression."""

    @property
    def limits(self) -> Limits:
        """What of this bounds a guard."""
        return Limits(self.door_threads, self.stream_threads, self.max_message_bytes, self.retire)


class TLSSection(Section):
    """``[tls]``: our certificate, and whom we let connect."""

    certificate: File = Path("certs/server.pem")
    private_key: File = Path("certs/server.key")
    client_ca: File = Path("certs/ca.pem")
    crl: File | None = None
    """Revocation lists: a file, or a folder of files."""
    stale_crl: Literal["warn", "refuse"] = "warn"
    """What a list that is late, or missing for a client's authority, comes to."""
    trust_bundles: dict[str, File] = Field(default_factory=dict)
    """Authorities of their own for some trust domains, whose clients ``client_ca`` does not vouch
    for; a domain that has some is admitted."""
    trust_domains: Annotated[list[str], Field(min_length=1)] = Field(
        default_factory=lambda: ["example.org"]
    )
    """SPIFFE trust domains whose members may connect."""
    minimum_version: Literal["1.2", "1.3"] = "1.3"
    allow_readable_private_key: bool = False
    """Start although others on this machine can read the private key."""

    @field_validator("trust_domains", "trust_bundles")
    @classmethod
    def _check_trust_domains(cls, domains: Iterable[str]) -> Iterable[str]:
        for domain in domains:
            sentence_of(check_trust_domain, domain)
        return domains

    @model_validator(mode="after")
    def _check_crl(self) -> TLSSection:
        if self.stale_crl == "refuse" and self.crl is None:
            raise ValueError(
                'has stale_crl = "refuse" and no crl: every client would be refused; name the list'
            )
        return self


class TokensSection(Section):
    """``[tokens]``: what we vouch for."""

    issuer: Name = "https://secure-grpc.example.org"
    audience: Name = "secure-grpc"
    signing_key: File = Path("state/signing-key.pem")
    """Made on first start; holds all keys of the ring."""
    signing_key_passphrase_file: File | None = None
    """With it the keys are encrypted where they lie."""
    signing_key_lifetime: Annotated[int, Field(ge=0)] = 90 * 86400
    """Seconds after which the next key is made; 0 is never."""
    signing_key_publishing: Annotated[int, Field(ge=0)] = 600
    """Seconds for verifiers to fetch a key before it signs."""
    key_set: File | None = None
    """For ``Guard.from_config``: the issuer's public keys, where the issuer is another server."""
    access_token_lifetime: Annotated[int, Field(ge=30, le=3600)] = 600
    """Seconds."""
    session_idle_lifetime: Annotated[int, Field(ge=60)] = 7 * 86400
    """Seconds after which a refresh token that is not used ends."""
    session_lifetime: Annotated[int, Field(ge=60)] = 30 * 86400
    """Seconds after which a session ends, however busy."""

    @field_validator("signing_key_lifetime")
    @classmethod
    def _check_signing_key_lifetime(cls, seconds: int) -> int:
        """Refuse what would fill the key set: a key is published for an hour after its last use."""
        if 0 < seconds < 3600:
            raise ValueError("is less than 3600 seconds; 0 is never")
        return seconds


class WorkloadSection(Section):
    """``[[workloads]]``: who gets a token by its client certificate alone."""

    spiffe_id: SpiffeIDText
    roles: tuple[Word, ...] = ()
    scopes: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class AuthenticatorSection:
    """``[[authenticators]]``: one way to recognise callers, with the settings of its own type."""

    name: str
    kind: AuthenticatorType[Any]
    settings: BaseModel


def read_authenticator(table: object) -> AuthenticatorSection:
    """Read one table of ``[[authenticators]]``. Raises ``ValueError``."""
    if isinstance(table, AuthenticatorSection):
        return table
    if not isinstance(table, dict):
        raise ValueError("is not a table")  # noqa: TRY004 - the one that pydantic listens to
    settings = dict(table)
    name = settings.pop("type", None)
    try:
        kind = find_type(name if isinstance(name, str) else "")
        called = _NAME.validate_python(settings.pop("name", name))
    except ValueError as error:
        at_fault = "name" if isinstance(error, ValidationError) else "type"
        reason = "is no name of 1 to 256 characters" if at_fault == "name" else str(error)
        problem = InitErrorDetails(
            type=PydanticCustomError("value_error", "{reason}", {"reason": reason}),
            loc=(at_fault,),
            input=name,
        )
        raise ValidationError.from_exception_data("authenticators", [problem]) from None
    # What this raises keeps its own place below ours.
    return AuthenticatorSection(called, kind, kind.settings.model_validate(settings))


_NAME: TypeAdapter[str] = TypeAdapter(Name)
OWN_TOKENS = AuthenticatorSection("jwt", LOCAL_ISSUER, LocalIssuerSettings())


class StoreSection(Section):
    """``[store]``: what is remembered, and where."""

    url: str = "sqlite:///state/secure-grpc.db"
    max_feed_staleness: Annotated[float, Field(ge=1, le=3600)] = 60.0
    """Seconds for which tokens are believed when revocations cannot be read; then UNAVAILABLE."""

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
        return prefix + str(resolve(Path(url.removeprefix(prefix))).absolute())


class PolicySection(Section):
    """``[policy]``: who may call what."""

    file: File | None = None
    """gRFC A43 JSON; without it the policy that is shipped with the server."""


class HTTPSection(Section):
    """``[http]``: /healthz, /metrics and /.well-known/jwks.json, in the clear; off by default."""

    listen: Address | None = None


class LogSection(Section):
    """``[log]``: to standard error."""

    format: Literal["auto", "json", "text"] = "auto"
    """``auto`` is text on a terminal and JSON elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"
