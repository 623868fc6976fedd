"""What is measured, and what is compared with what."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec

from benchmarks.credentials import Tokens
from benchmarks.servers import Guarded, Server, Stack

_UVLOOP: Stack = "asyncio + uvloop"


@dataclass(frozen=True)
class Load:
    """What a client sends: ``authorization``, or stand-ins for so many tokens, or neither."""

    authorization: str | None = None
    seen: int = 0
    streaming: bool = False


@dataclass(frozen=True)
class Point:
    """One server under one load. ``expected`` is the gRPC status of its calls."""

    name: str
    server: Server
    load: Load = field(repr=False)
    expected: str = "OK"


@dataclass(frozen=True)
class Ratio:
    """CPU per call of one point by that of another. ``goal`` is the most that it should be."""

    name: str
    above: str
    below: str
    goal: float | None = None


@dataclass(frozen=True)
class Skipped:
    """A point or a ratio that this machine cannot measure."""

    name: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Everything of one run."""

    points: tuple[Point, ...]
    ratios: tuple[Ratio, ...]
    skipped: tuple[Skipped, ...] = ()

    def without(self, stack: str, reason: str) -> Plan:
        """Return the plan with everything that needs the stack skipped."""
        missing = {point.name for point in self.points if point.server.stack == stack}
        lost = [ratio.name for ratio in self.ratios if {ratio.above, ratio.below} & missing]
        return Plan(
            tuple(point for point in self.points if point.name not in missing),
            tuple(ratio for ratio in self.ratios if ratio.name not in lost),
            (
                *self.skipped,
                *(Skipped(point.name, reason) for point in self.points if point.name in missing),
                *(Skipped(name, reason) for name in lost),
            ),
        )


def plan(tokens: Tokens, scale: float) -> Plan:
    """Lay out a run. ``scale`` multiplies the large numbers, for a quick look."""
    rules, seen, revoked = (max(10, int(n * scale)) for n in (10_000, 100_000, 1_000_000))
    good = Load(f"Bearer {tokens.good}")
    stream = Load(f"Bearer {tokens.good}", streaming=True)
    rules_by_default = Guarded().rules
    bare, guard = Server("bare"), Server(Guarded())
    large_policy, many_revocations = (
        Server(Guarded(rules=rules)),
        Server(Guarded(revocations=revoked)),
    )

    def refused(name: str, token: str | None, expected: str = "UNAUTHENTICATED") -> Point:
        load = Load(None if token is None else f"Bearer {token}")
        return Point(f"guard, refusing: {name}", guard, load, expected)

    refusals = (
        refused("no token", None),
        refused("malformed", tokens.malformed),
        refused("foreign issuer", tokens.foreign),
        refused("expired", tokens.expired),
        refused("not allowed", tokens.not_allowed, "PERMISSION_DENIED"),
        refused("forged signature", tokens.forged),
    )
    points = (
        Point("bare, no token", bare, Load()),
        Point("bare", bare, good),
        Point("usual interceptor", Server("usual"), good),
        Point("guard", guard, good),
        *refusals,
        Point(f"guard, {rules:,} rules", large_policy, good),
        Point(f"guard, {revoked:,} revocations", many_revocations, good),
        Point("guard, 1 token seen", Server(Guarded(seen=1)), Load(tokens.good, seen=1)),
        Point(
            f"guard, {seen:,} tokens seen",
            Server(Guarded(seen=seen)),
            Load(tokens.good, seen=seen),
        ),
        Point("guard, audit into a stuck pipe", Server(Guarded(audited=True)), good),
        Point("bare, a stream's message", bare, stream),
        Point("guard, a stream's message", guard, stream),
        Point("bare, asyncio", Server("bare", "asyncio"), good),
        Point("guard, asyncio", Server(Guarded(), "asyncio"), good),
        Point("bare, asyncio + uvloop", Server("bare", _UVLOOP), good),
        Point("guard, asyncio + uvloop", Server(Guarded(), _UVLOOP), good),
    )
    ratios = (
        Ratio("full guard ÷ bare", "guard", "bare", 1.10),
        Ratio("full guard ÷ usual interceptor", "guard", "usual interceptor", 0.45),
        Ratio("usual interceptor ÷ bare", "usual interceptor", "bare"),
        *(
            Ratio(
                f"refusing ÷ serving: {point.name.partition(': ')[2]}",
                point.name,
                "guard",
                1.6 if point.name.endswith("forged signature") else 1.0,
            )
            for point in refusals
        ),
        Ratio(f"{rules:,} rules ÷ {rules_by_default}", f"guard, {rules:,} rules", "guard", 1.05),
        Ratio(f"{revoked:,} revocations ÷ none", f"guard, {revoked:,} revocations", "guard", 1.05),
        Ratio(
            f"{seen:,} tokens seen ÷ 1", f"guard, {seen:,} tokens seen", "guard, 1 token seen", 1.05
        ),
        Ratio(
            "audit into a stuck pipe ÷ no audit", "guard, audit into a stuck pipe", "guard", 1.05
        ),
        Ratio(
            "a stream's message, guard ÷ bare",
            "guard, a stream's message",
            "bare, a stream's message",
            1.05,
        ),
        Ratio("full guard ÷ bare, asyncio", "guard, asyncio", "bare, asyncio", 1.15),
        Ratio(
            "full guard ÷ bare, asyncio + uvloop",
            "guard, asyncio + uvloop",
            "bare, asyncio + uvloop",
            1.15,
        ),
    )
    everything = Plan(points, ratios)
    if find_spec("uvloop") is None:
        return everything.without(_UVLOOP, "uvloop is not installed")
    return everything
