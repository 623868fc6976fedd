"""Open streams whose issuer says at once that it cannot tell: what is known of them decides."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asked_streams import asked_door, forbidden, over, revoked

from support.door import wait_until
from support.open_streams import Open
from support.probe import STYLES


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("change", "reason"),
    [(revoked, "SESSION_ENDED"), (forbidden, "POLICY_CHANGED"), (over, "SESSION_ENDED")],
)
def test_G10_G11_G12_an_issuer_that_is_down_puts_off_no_end(
    tmp_path: Path, style: str, change: Callable[..., None], reason: str
) -> None:
    with asked_door(tmp_path, style) as (door, asking, move, stack):
        one = Open(door.channel(), "stream_stream", stack, "opaque-one")
        other = Open(door.channel(), "stream_stream", stack, "opaque-other")
        wait_until(lambda: len(door.probe.callers) == 2)
        asking.is_down = True
        move(2)
        wait_until(lambda: len(door.events) >= 2)
        assert {event.code for event in door.events} == {"network"}
        before = time.monotonic()
        change(door, move)
        one.assert_ended(reason, before)
        assert not other.ended.wait(1), "nothing has changed for it"


@pytest.mark.parametrize("style", STYLES)
def test_G10_a_token_that_expires_while_its_stream_is_looked_at_ends_it(
    tmp_path: Path, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with asked_door(tmp_path, style) as (door, asking, move, stack):
        one = Open(door.channel(), "stream_stream", stack, "opaque-one")
        wait_until(lambda: len(door.probe.callers) == 1)
        look = door.core.recheck_as

        def slow_look(*arguments: Any) -> None:
            look(*arguments)
            over(door, move)

        monkeypatch.setattr(door.core, "recheck_as", slow_look)
        asking.is_down = True
        move(2)
        one.assert_ended("SESSION_ENDED")
