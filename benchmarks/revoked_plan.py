"""Which process dies where, in which round, and what is being revoked then."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.dying import Step
from benchmarks.revoked_people import Kind, Way

_STEPS, _KINDS, _WAYS = list(Step), list(Kind), list(Way)


class Plan(NamedTuple):
    """Where to kill in a round, and what is being revoked then and how."""

    step: Step
    kind: Kind
    way: Way
    both: bool
    """Whether the other process is killed too: then nothing but the disk knows anything."""


def plan(number: int) -> Plan:
    """Return what a round is about: 96 of them have every step with every kind and way."""
    turn, place = divmod(number, len(_STEPS))
    way, kind = divmod((turn + place) % (len(_WAYS) * len(_KINDS)), len(_KINDS))
    # In no order, so that a few rounds tell something too.
    step = _STEPS[(5 * place + 4) % len(_STEPS)]
    both = step is not Step.OTHER and (turn + place) % 3 == 0
    return Plan(step, _KINDS[kind], _WAYS[way], both)


def before(kind: Kind) -> Kind:
    """What is revoked before that, such that somebody is left whom neither means."""
    return _KINDS[(_KINDS.index(kind) + 1) % len(_KINDS)]
