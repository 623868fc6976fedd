"""Open streams whose issuer says at once that it cannot tell: what is known of them decides."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from test_guard_stream_watch import Asking, Revoked, forbidden, over, revoked

from support.door import open_door, wait_until
from support.open_streams import Open, hold
from support.probe import STYLES


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("change", "reason"),
    [(revoked, "SESSION_ENDED"), (forbidden, "POLICY_CHANGED"), (over, "SESSION_ENDED")],
)
def test_G10_G11_G12_an_issuer_that_is_down_puts_off_no_end(
    tmp_path: Path, style: str, change: Callable[..., None], reason: str
) -> None:
    now = time.time()
    moment = [now]
    asking = Asking(lambda: moment[0], {"opaque-one": now + 300, "opaque-other": now + 3600})
    with (
        open_door(
            tmp_path,
            style=style,
            clock=lambda: moment[0],
            before=(asking,),
            revocations=Revoked(),
        ) as door,
        ExitStack() as stack,
    ):
        stack.callback(hold(door))
        one = Open(door.channel(), "stream_stream", stack, "opaque-one")
        other = Open(door.channel(), "stream_stream", stack, "opaque-other")
        wait_until(lambda: len(door.probe.callers) == 2)
        asking.is_down = True
        moment[0] = now + 2
        wait_until(lambda: len(door.events) >= 2)
        assert {event.code for event in door.events} == {"network"}

        def move(seconds: float) -> None:
            moment[0] = now + seconds

        before = time.monotonic()
        change(door, move)
        one.assert_ended(reason, before)
        assert not other.ended.wait(1), "nothing has changed for it"
