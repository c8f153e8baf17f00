"""Exit codes of all commands, and the one place where an error becomes a line and a code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from ranjax.core.errors import ConfigError, DataError, OtherProcessError, RunError, StuckError
from ranjax.core.extras import EXTRAS, MissingExtraError

DONE = 0
UNFINISHED = WRONG = 1
"""`status`: the run is not done. `verify`: something is wrong."""
REFUSED = 2
"""The input was refused; one line says why."""
FAILED = 3
"""The run cannot go on: no space, no memory, figures that are not finite; one line says what to change."""
STOPPED = 75
"""Stopped on request, everything saved."""
INTERRUPTED = 130
"""Stopped at once by a second Ctrl-C or SIGTERM; the last checkpoint and all finished shards remain."""

_FULL = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG)


class UsageError(ValueError):
    """The command line does not say what its command needs."""


def guard(command: Callable[[], int]) -> int:
    """Return the exit code of a command; an error that a user can mend becomes one line on the standard error."""
    try:
        return command()
    except (ConfigError, DataError, UsageError, MissingExtraError) as error:
        return _fail(error, REFUSED)
    except RunError as error:
        _fail(error, FAILED)
        if isinstance(error, StuckError):
            leave(FAILED)
        return FAILED
    except OtherProcessError as error:
        return _fail(error, REFUSED if error.refused else FAILED)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        return _fail(MissingExtraError(module), REFUSED)
    except BrokenPipeError:
        # The reader of the output has seen enough (`| head`): write nothing more, and do not complain at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        if error.errno not in (*_FULL, errno.EACCES):
            raise
        named = f"cannot read or write {error.filename}: {error.strerror}" if error.filename else error.strerror
        return _fail(named, REFUSED if error.errno == errno.EACCES else FAILED)
    except KeyboardInterrupt:
        from ranjax.training.signals import AT_ONCE

        print(AT_ONCE, file=sys.stderr)
        return INTERRUPTED


def leave(code: int) -> None:
    """End the process with all that was said, and wait for no thread or library."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _fail(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code
