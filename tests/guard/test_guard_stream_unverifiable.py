"""Open streams whose issuer says at once that it cannot tell: what is known of them decides."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

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
