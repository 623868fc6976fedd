"""One open stream on the threaded stack."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from secure_server.guard.adapters.threads_servicer import Context, Send
from secure_server.guard.caller import CALLER, Caller
from secure_server.guard.refusal import Answer
from secure_server.guard.status import answer_of, code_of


class ThreadedStream:
    """One open stream on its way through the stream pool."""

    caller: Caller
    """Known once the stream was let in."""

    def __init__(self, respond: Callable[[], None], context: Context, send: Send) -> None:
        self._respond = respond
        self._context = context
        self._send = send
        self._is_complete = False
        self._one_at_a_time = threading.Lock()
        self.non_blocking = False
        self.say: Send = self.send
        """What the servicer, and the end of its function, send by."""

    @property
    def status(self) -> str:
        """What the stream has come to, once it is over."""
        hung_up = self._context.code() is None and not self._is_complete
        return "CANCELLED" if hung_up else code_of(self._context)

    def serve(self) -> None:
        CALLER.set(self.caller)
        try:
            self._respond()
        except Exception:  # noqa: BLE001 - its status is set; what follows sends it
            self.non_blocking = False
        if not self.non_blocking and self._context.is_active():
            self.say(None)

    def send(self, response: Any) -> None:
        """Send a response, or the status for None. Never on the serving thread: a message waits
        for that thread.
        """
        # Beside another one on its way grpcio loses a message, and waits for it for ever.
        with self._one_at_a_time:
            if response is None:
                if not self._context.is_active():
                    return  # the caller hung up, or we have ended it: a status goes out once
                self._is_complete = True
            self._send(response)

    def end(self, answer: Answer = Answer.SERVER_ROTATING) -> None:
        """End the call with this answer, whatever the handler is doing."""
        code, text, trailers = answer_of(answer)
        self._context.set_trailing_metadata(trailers)
        self._context.set_code(code)
        self._context.set_details(text)
        if not self._context.is_active():
            return
        self._send(None)

    def cut(self) -> None:
        """End the call without an answer, and let go of the thread that sends to it."""
        self._context.cancel()
