"""One log, to standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def set_up_logging(form: str, level: str) -> None:
    """Log to standard error, as ``json`` or ``text``; ``auto`` is text on a terminal only.

    In both forms a control character in a value is escaped: nobody's name breaks a line. As text,
    the lines of a traceback are indented; no other line is.
    """
    as_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    renderers = _TEXT if as_text else [structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*_SHARED, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries log the standard way; they get the same form.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(_LEVELS[level], logging.WARNING), force=True)


def _escape(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape what the text form writes as it is: all values but these two are ``repr`` already."""
    event["event"] = _printable(str(event["event"]))
    if "exception" in event:
        lines = str(event["exception"]).split("\n")
        event["exception"] = "\n".join("    " + _printable(line) for line in lines)
    return event


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]
_TEXT: list[Any] = [
    _escape,
    structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(),
        repr_native_str=True,
        # No other formatter: they print what variables hold, tokens among them.
        exception_formatter=structlog.dev.plain_traceback,
    ),
]


def logger(name: str) -> Any:
    """Return a logger whose lines carry a name.

    It goes where structlog was told to go, by ``set_up_logging`` or by the application around us;
    where nobody said anything, to standard error: standard output is the application's own.
    """
    if structlog.is_configured():
        return structlog.get_logger().bind(logger=name)
    own = structlog.wrap_logger(structlog.PrintLogger(sys.stderr), [*_SHARED, *_TEXT])
    return own.bind(logger=name)
