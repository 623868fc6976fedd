"""What a start of the identity service would say, with nothing opened for writing."""

from __future__ import annotations

import time
from collections.abc import Iterator

from secure_base.creatable import folders_made_before
from secure_server.app.addresses import check_addresses
from secure_server.auth.keys import VerificationKey
from secure_server.config import Config
from secure_server.guard.check import CheckFinding, look_at, look_at_parts
from secure_server.shipped_policy import check_every_method_has_a_rule, shipped_policy
from secure_server.store.look import look as look_at_store
from secure_server.tokens.key_file import KeyFile


def check_service(config: Config) -> Iterator[CheckFinding]:
    """Look at what ``build_service`` would open, in its order, and ask the issuers."""
    yield look_at("addresses", lambda: _look_at_addresses(config))
    keys: dict[str, VerificationKey] = {}

    def look_at_keys() -> str:
        file = KeyFile(config.tokens.signing_key, config.tokens.signing_key_passphrase_file)
        ring = file.look(time.time())
        if ring is None:
            return f"{file.path} is made by the first start"
        keys.update(ring.keys)
        return f"{file.path}: {ring.key_id} signs"

    yield look_at("signing key", look_at_keys)
    # A start makes the folder of the signing key before it opens audit loggers.
    with folders_made_before([config.tokens.signing_key.parent]):
        parts = list(
            look_at_parts(
                config,
                policy=shipped_policy(),
                accept=check_every_method_has_a_rule,
                find_key=keys.get,
            )
        )
    yield from parts
    yield look_at("store", lambda: look_at_store(config.store.url))


def _look_at_addresses(config: Config) -> str:
    check_addresses(config)
    http = config.http.listen
    return f"{config.server.listen} is free" + ("" if http is None else f", and {http} for HTTP")
