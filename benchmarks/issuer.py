"""``python -m benchmarks.issuer``: an issuer that is slow, and one that is gone."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Annotated

import grpc
import typer

from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_server.testing import Provider, running_provider
from tests.support.running import Installation, ServerProcess, bearer

_POLICY = (
    '{"name": "issuer", "allow_rules": [{"name": "any", "source": {"request_principals": ["*"]}}]}'
)
_SETTINGS = """
[policy]
file = "any.json"
[[authenticators]]
type = "oidc"
profile = "rfc9068"
issuer = "{issuer}"
audience = "{audience}"
ca = "{ca}"
allow_private_addresses = true
[[authenticators]]
type = "introspection"
endpoint = "{endpoint}"
issuer = "{issuer}"
audience = "{audience}"
client_id = "{client}"
client_secret_file = "secret"
ca = "{ca}"
allow_private_addresses = true
"""


_OTHER_CALLER = """
import json, sys, threading, time
from pathlib import Path
import grpc
address, *files = sys.argv[1:]
token = sys.stdin.readline().strip()
credentials = grpc.ssl_channel_credentials(*(Path(file).read_bytes() for file in files))
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), over.set()), daemon=True).start()
served, statuses = [], {}
with grpc.secure_channel(address, credentials) as channel:
    call = channel.unary_unary("/secure_api.tokens.v1.TokenService/WhoAmI")
    while not over.is_set():
        begun = time.perf_counter()
        try:
            call(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=20)
            name = "OK"
            if statuses:
                served.append((time.perf_counter() - begun) * 1000)
            else:
                print("calling", flush=True)
        except grpc.RpcError as error:
            name = error.code().name
        statuses[name] = statuses.get(name, 0) + 1
        time.sleep(0.005)
print(json.dumps([served, statuses]))
"""
"""A caller who is known and calls steadily, until it is told to stop."""


@dataclass
class Calls:
    """What came of calls: statuses, and how long the served ones took in milliseconds."""

    statuses: Counter[str] = field(default_factory=Counter)
    served_ms: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, object]:
        cuts = quantiles(self.served_ms, n=100) if len(self.served_ms) > 1 else [0.0] * 99
        return dict(self.statuses) | {"p50_ms": round(cuts[49], 2), "p99_ms": round(cuts[98], 2)}


class Bench:
    """One server, its provider, and callers."""

    def __init__(
        self, installation: Installation, server: ServerProcess, provider: Provider
    ) -> None:
        self._provider = provider
        self._files = installation.client("caller")
        self._address = server.address
        self._channel = self._files.channel(server.address)
        self._stub = TokenServiceStub(self._channel)

    def call(self, token: str, calls: Calls, timeout: float = 20.0) -> None:
        begun = time.perf_counter()
        try:
            self._stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(token), timeout=timeout)
            calls.served_ms.append((time.perf_counter() - begun) * 1000)
            calls.statuses["OK"] += 1
        except grpc.RpcError as error:
            calls.statuses[error.code().name] += 1

    def steadily(self, token: Callable[[], str], seconds: float, calls: Calls) -> None:
        """Call again and again, with a pause as long as a handful of calls."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.call(token(), calls)
            time.sleep(0.005)

    def slow(self, many: int) -> dict[str, object]:
        """Introspections that take a second each, all at once, beside callers who are known."""
        known = self._provider.issuer.token(None)
        before, during, slow = Calls(), Calls(), Calls()
        self.steadily(lambda: known, 3, before)
        # In a process of its own: here it would wait for the provider's threads and for theirs.
        other = self._other_caller(known)
        self._provider.delay = 1.0
        tokens = [self._provider.opaque(f"slow-{number}") for number in range(many)]
        waiting = [threading.Thread(target=self.call, args=(token, slow, 30.0)) for token in tokens]
        for one in waiting:
            one.start()
        for one in waiting:
            one.join()
        output, _ = other.communicate("over\n")
        during.served_ms, during.statuses = json.loads(output)
        self._provider.delay = 0.0
        return {
            "slow_introspections": many,
            "slow": slow.summary(),
            "others_before": before.summary(),
            "others_meanwhile": during.summary(),
        }

    def _other_caller(self, token: str) -> subprocess.Popen[str]:
        files = self._files
        settings = [self._address, str(files.ca), str(files.private_key), str(files.certificate)]
        other = subprocess.Popen(
            [sys.executable, "-c", _OTHER_CALLER, *settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(token + "\n")
        other.stdin.flush()
        other.stdout.readline()  # it calls
        return other

    def outage(self, seconds: float) -> dict[str, object]:
        """Answer nothing but 503 for a while: tokens of known keys, seen and unseen; then a new
        key.
        """
        issuer = self._provider.issuer
        seen, calls = issuer.token(None), Calls()
        self.call(seen, calls)
        self._provider.fail()
        half = threading.Thread(target=self.steadily, args=(lambda: seen, seconds, calls))
        half.start()
        self.steadily(lambda: issuer.token(None), seconds, calls)
        half.join()
        issuer.rotate()
        new = issuer.token(None)
        refused = Calls()
        self.call(new, refused)
        self._provider.recover()
        begun = time.monotonic()
        taken_up = Calls()
        while not taken_up.statuses["OK"] and time.monotonic() < begun + 60:
            self.call(new, taken_up)
            time.sleep(0.05)
        return {
            "outage_seconds": seconds,
            "known_keys": calls.summary(),
            "new_key_during_outage": dict(refused.statuses),
            "new_key_taken_up_after_seconds": round(time.monotonic() - begun, 1),
        }

    def close(self) -> None:
        self._channel.close()


@contextmanager
def _bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="issuer-") as folder, running_provider() as provider:
        root = Path(folder)
        (root / "any.json").write_text(_POLICY)
        (root / "secret").touch(mode=0o600)
        (root / "secret").write_text(provider.client_secret)
        settings = _SETTINGS.format(
            issuer=provider.issuer.name,
            audience=provider.issuer.audience,
            ca=provider.ca_file,
            endpoint=provider.introspection_endpoint,
            client=provider.client_id,
        )
        installation = Installation(root, settings=settings)
        server = installation.start()
        bench = Bench(installation, server, provider)
        try:
            yield bench
        finally:
            bench.close()
            server.stop()


def main(
    *,
    seconds: Annotated[float, typer.Option(min=1, help="How long the issuer is gone.")] = 60,
    slow: Annotated[int, typer.Option(min=1, help="Slow introspections at once.")] = 200,
) -> None:
    """Print what callers see of a slow issuer and of one that is gone; the last line is JSON.

    Exits with 1 if a call with a token of a known key failed.
    """
    with _bench() as bench:
        figures = bench.slow(slow) | bench.outage(seconds)
    for name, value in figures.items():
        print(f"{name}: {value}")
    print(json.dumps(figures))
    known = figures["known_keys"]
    assert isinstance(known, dict)
    if set(known) - {"OK", "p50_ms", "p99_ms"}:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
