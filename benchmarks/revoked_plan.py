"""The plan of the rounds: which process dies at which step, during which revocation."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.dying import Step
from benchmarks.revoked_people import Kind, Way

_STEPS, _KINDS, _WAYS = list(Step), list(Kind), list(Way)


class Plan(NamedTuple):
    """The step to kill at in a round, and the revocation under way."""

    step: Step
    kind: Kind
    way: Way
    both: bool
    """Whether the other process is killed too: then only the disk has the state."""


def plan(number: int) -> Plan:
    """Return the plan of a round: 96 rounds have every step with every kind and way."""
    turn, place = divmod(number, len(_STEPS))
    way, kind = divmod((turn + place) % (len(_WAYS) * len(_KINDS)), len(_KINDS))
    # Shuffled, so that a few rounds cover different steps.
    step = _STEPS[(5 * place + 4) % len(_STEPS)]
    both = step is not Step.OTHER and (turn + place) % 3 == 0
    return Plan(step, _KINDS[kind], _WAYS[way], both)


def before(kind: Kind) -> Kind:
    """Return what to revoke first, such that some credentials stay valid."""
    return _KINDS[(_KINDS.index(kind) + 1) % len(_KINDS)]
