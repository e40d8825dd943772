"""The command `peftguard`: parsing, calling, exit codes; one verb a file.

Exit codes: 0 all clean; 1 something flagged, or a finding at or above `--fail-on`; 2 wrong usage or
an internal error; 3 nothing worse than `unknown`.
"""

from __future__ import annotations

import os
import sys

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit. Every error is one line on stderr."""
    # Modules are read by several threads; BLAS threads on top of those only get in their way, and
    # OpenBLAS reads the variable once, when numpy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from peftguard.cli.app import app
    from peftguard.errors import PeftGuardError

    try:
        app()
    except PeftGuardError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has closed it: nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_ERROR)
    except Exception as error:
        _fail(f"internal error, please report it: {type(error).__name__}: {error}")


def _fail(message: str) -> None:
    print(f"peftguard: error: {message}", file=sys.stderr)
    sys.exit(EXIT_ERROR)
