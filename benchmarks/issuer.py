"""``python -m benchmarks.issuer``: an issuer that is slow, and one that is down."""

from __future__ import annotations

import json
import os
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


_SLOW = 1.0
"""Seconds until a slow introspection is answered."""

_OTHER_CALLER = """
import json, sys, threading, time
from pathlib import Path
import grpc
address, *files = sys.argv[1:]
token = sys.stdin.readline().strip()
credentials = grpc.ssl_channel_credentials(*(Path(file).read_bytes() for file in files))
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), over.set()), daemon=True).start()
calls = []
with grpc.secure_channel(address, credentials) as channel:
    call = channel.unary_unary("/secure_api.tokens.v1.TokenService/WhoAmI")
    while not over.is_set():
        begun = time.monotonic()
        try:
            call(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=20)
            status = "OK"
        except grpc.RpcError as error:
            status = error.code().name
        calls.append((begun, status, (time.monotonic() - begun) * 1000))
        if len(calls) == 1:
            print("calling", flush=True)
        time.sleep(0.005)
print(json.dumps(calls))
"""
"""A cached caller that calls steadily until it is stopped; prints start, status, milliseconds."""


@dataclass
class Calls:
    """The results of calls: statuses, and the milliseconds of the served ones."""

    statuses: Counter[str] = field(default_factory=Counter)
    served_ms: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, object]:
        cuts = quantiles(self.served_ms, n=100) if len(self.served_ms) > 1 else [0.0] * 99
        times = {"p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(self.served_ms, default=0)}
        return dict(self.statuses) | {name: round(value, 2) for name, value in times.items()}


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

    def slow(self, many: int, rounds: int) -> dict[str, object]:
        """Measure a cached caller during rounds of slow introspections, during as many calls that
        need no introspection, and alone.
        """
        known = self._provider.issuer.token(None)
        other = self._other_caller(known)
        _stand_back()
        times = [time.monotonic()]
        time.sleep(rounds)
        times.append(time.monotonic())
        for _ in range(rounds):
            self._at_once([known] * many)
            time.sleep(1)
        times.append(time.monotonic())
        self._provider.delay = _SLOW
        statuses: Counter[str] = Counter()
        waits = []
        for number in range(rounds):
            tokens = [self._provider.opaque(f"slow-{number}-{caller}") for caller in range(many)]
            begun = time.monotonic()
            waits.append((begun + 0.3 * _SLOW, begun + 0.9 * _SLOW))
            statuses += self._at_once(tokens)
        times.append(time.monotonic())
        self._provider.delay = 0.0
        output, _ = other.communicate("over\n")
        calls = [(begun, status, took) for begun, status, took in json.loads(output)]
        return {
            "slow_introspections": {"at_once": many, "rounds": rounds} | dict(statuses),
            "others_alone": _between(calls, (times[0], times[1])).summary(),
            "others_beside_as_many_known": _between(calls, (times[1], times[2])).summary(),
            "others_beside_slow": _between(calls, (times[2], times[3])).summary(),
            # All calls have arrived and none has an answer: the cost of waiting alone.
            "others_while_these_wait": _between(calls, *waits).summary(),
        }

    def _at_once(self, tokens: list[str]) -> Counter[str]:
        request = pb.WhoAmIRequest()
        calls = [
            self._stub.WhoAmI.future(request, metadata=bearer(token), timeout=30)
            for token in tokens
        ]
        return Counter(call.code().name for call in calls)

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
        """Let the issuer answer only 503 for a while: tokens of known keys, cached or not; then a
        new key.
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
        first_uses = Calls()
        while not first_uses.statuses["OK"] and time.monotonic() < begun + 60:
            self.call(new, first_uses)
            time.sleep(0.05)
        return {
            "outage_seconds": seconds,
            "known_keys": calls.summary(),
            "known_keys_failed": calls.statuses.total() - calls.statuses["OK"],
            "new_key_during_outage": dict(refused.statuses),
            "new_key_used_after_seconds": round(time.monotonic() - begun, 1),
        }

    def close(self) -> None:
        self._channel.close()


def _between(calls: list[tuple[float, str, float]], *times: tuple[float, float]) -> Calls:
    chosen = [
        (status, took)
        for begun, status, took in calls
        if any(begin <= begun < end for begin, end in times)
    ]
    return Calls(
        Counter(status for status, _ in chosen), [took for status, took in chosen if status == "OK"]
    )


def _stand_back() -> None:
    """Give the processor to the server and the measured caller: the issuer and the many callers of
    this process would be on other machines.
    """
    tasks = [int(task.name) for task in Path("/proc/self/task").glob("*")]
    for task in tasks or [0]:
        os.setpriority(os.PRIO_PROCESS, task, 19)


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
    rounds: Annotated[int, typer.Option(min=1, help="How often so many come at once.")] = 10,
) -> None:
    """Print what callers see of a slow issuer and of one that is down; the last line is JSON.

    Exits with 1 if a call with a token of a known key failed.
    """
    with _bench() as bench:
        figures = bench.slow(slow, rounds) | bench.outage(seconds)
    for name, value in figures.items():
        print(f"{name}: {value}")
    print(json.dumps(figures))
    if figures["known_keys_failed"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
