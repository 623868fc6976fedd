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
    """One open stream in the stream pool."""

    caller: Caller
    """Set when the stream was admitted."""

    def __init__(self, respond: Callable[[], None], context: Context, send: Send) -> None:
        self._respond = respond
        self._context = context
        self._send = send
        self._is_complete = False
        self._one_at_a_time = threading.Lock()
        self.non_blocking = False
        self.say: Send = self.send
        """Sends for the servicer, and the status when its function has ended."""

    @property
    def status(self) -> str:
        """The name of the stream's status, once it is over."""
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
        """Send a response, or the status for None. Never call it on the serving thread, which a
        message waits for.
        """
        # While another message is being sent, grpcio loses this one and waits for ever.
        with self._one_at_a_time:
            if response is None:
                if not self._context.is_active():
                    return  # the caller hung up, or the guard ended it: a status is sent once
                self._is_complete = True
            self._send(response)

    def end(self, answer: Answer = Answer.SERVER_ROTATING) -> None:
        """End the call with this answer, even while the handler is running."""
        code, text, trailers = answer_of(answer)
        self._context.set_trailing_metadata(trailers)
        self._context.set_code(code)
        self._context.set_details(text)
        if not self._context.is_active():
            return
        self._send(None)

    def cut(self) -> None:
        """End the call without an answer, and release the thread that sends to it."""
        self._context.cancel()
