"""What the contract says, in Python's words. Yours to change: it is a part of the plugin."""

import functools
import sys

from componentize_py_types import Err
from wit_world.imports import log
from wit_world.imports.tables import TableError_Unavailable
from wit_world.imports.types import (
    Failure_Internal,
    Failure_Invalid,
    Failure_NotApplicable,
    Failure_Unavailable,
    Retry,
)


def not_applicable(why: str) -> Err:
    """There is nothing here that the plugin is for; the alert goes on."""
    return Err(Failure_NotApplicable(why))


def unavailable(reason: str, after_ms: int | None = None) -> Err:
    """Something is not there now; the host calls again later."""
    return Err(Failure_Unavailable(Retry(reason, after_ms)))


def invalid(why: str) -> Err:
    """The alert is not what it should be; it goes to the dead letters."""
    return Err(Failure_Invalid(why))


def internal(why: str) -> Err:
    """The plugin is wrong; the alert goes to the dead letters."""
    return Err(Failure_Internal(why))


_FAILURES = (Failure_NotApplicable, Failure_Unavailable, Failure_Invalid, Failure_Internal)


def explained(enrich):
    """Explains mistakes: without it an exception would end the call as a trap, which says nothing."""

    @functools.wraps(enrich)
    def wrapped(self, alert):
        try:
            return enrich(self, alert)
        except Exception as error:
            if isinstance(error, Err) and isinstance(error.value, _FAILURES):
                raise
            if isinstance(error, Err) and isinstance(error.value, TableError_Unavailable):
                raise unavailable(error.value.value) from None
            # What the host raises has its reason in `value`.
            reason = repr(error.value) if isinstance(error, Err) else repr(error)
            places, trace = [], error.__traceback__
            while trace is not None:
                places.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
                trace = trace.tb_next
            log.log(log.Level.ERROR, f"{reason} at {', '.join(places)}")
            raise internal(reason) from None

    return wrapped


class _Log:
    """There is no terminal in a plugin: what is printed becomes lines of the host's log."""

    def __init__(self, level):
        self.level, self.rest = level, ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            log.log(self.level, line)
        return len(text)

    def flush(self) -> None:
        if self.rest:
            log.log(self.level, self.rest)
            self.rest = ""


sys.stdout, sys.stderr = _Log(log.Level.INFO), _Log(log.Level.WARN)
