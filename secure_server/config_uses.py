"""Which keys each way of starting has a use for: it refuses the others where they are set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_SIGNS_NOTHING = "a guard signs nothing, and verifies by [tokens] key_set"
_ISSUED_ELSEWHERE = "set it where the tokens are issued, in the file of the identity service"
_REMEMBERS_NOTHING = "a guard has no store, and knows no revocations but those handed to it"
_YOUR_LOG = "the log is your application's: set structlog and logging up there"


@dataclass(frozen=True, slots=True)
class Use:
    """One way of starting from a file. ``refused`` has what to do instead, by ``section.key``."""

    name: str
    refused: Mapping[str, str]
    without_key_set: Mapping[str, str]
    """Those that are refused as well where there is no ``[tokens] key_set``."""


SERVICE = Use(
    "`secure-server serve`",
    {
        "tokens.key_set": (
            "it verifies its tokens by its signing keys. Take it out; or if this is a file of "
            "Guard.from_config, check it with `secure-server check --own-servicer`"
        )
    },
    {},
)

GUARD = Use(
    "Guard.from_config",
    {
        "server.listen": "the address is the one that you give to add_secure_port",
        "server.grace": "the grace is the one that you give to stop",
        "server.reflection": "add the reflection servicer to your server yourself",
        "tokens.signing_key": _SIGNS_NOTHING,
        "tokens.signing_key_passphrase_file": _SIGNS_NOTHING,
        "tokens.signing_key_lifetime": _SIGNS_NOTHING,
        "tokens.signing_key_publishing": _SIGNS_NOTHING,
        "tokens.access_token_lifetime": _ISSUED_ELSEWHERE,
        "tokens.session_idle_lifetime": _ISSUED_ELSEWHERE,
        "tokens.session_lifetime": _ISSUED_ELSEWHERE,
        "store.url": _REMEMBERS_NOTHING,
        "store.max_feed_staleness": _REMEMBERS_NOTHING,
        "http.listen": "a guard has no pages: show guard.reloads.warnings in your server's own",
        "log.format": _YOUR_LOG,
        "log.level": _YOUR_LOG,
    },
    {
        "tokens.issuer": "name the file with that issuer's public keys as [tokens] key_set",
        "tokens.audience": "name the file with the issuer's public keys as [tokens] key_set",
    },
)
