"""What a pickle would import, read from its opcodes without running any of them."""

from __future__ import annotations

import io
import logging
import pickletools
import re
from typing import NamedTuple

from peftguard.adapters.containers.names import shown
from peftguard.errors import LimitExceeded, MalformedFile, PeftGuardError, UnsafeFile
from peftguard.limits import Deadline

# picklescan keeps every opcode in memory; a tensor takes about thirty.
_MAX_OPCODES = 4_000_000
_CHECK_EVERY = 1 << 14
_CUT_SHORT = re.compile("exhausted|not enough|remain|no newline|expected .* bytes")

# What torch's weights-only loader may accept in one of its versions; the loader itself decides.
_ALLOWED = re.compile(
    r"""collections\.(OrderedDict|Counter)
    | _codecs\.encode
    | (builtins|__builtin__)\.(bytearray|set|complex)
    | torch\.nn\.parameter\.Parameter
    | torch\.serialization\._get_layout
    | torch\._utils\._rebuild_\w+
    | torch\._tensor\._rebuild_from_type_v2
    | torch\.(Size|device)
    | torch\.((cuda|sparse|cuda\.sparse|storage)\.)?\w*(Storage|Tensor)
    | torch\.(bool|half|float|double|b?float\d\w*|q?u?int\d\w*|complex\d+|bits\d\w*)
    | torch\.per_(tensor|channel)_\w+""",
    re.VERBOSE | re.ASCII,
)


class Pickles(NamedTuple):
    """Where the whole pickles that a run of bytes starts with end, and why there is no further."""

    ends: list[int]
    problem: str | None

    @property
    def whole(self) -> int:
        """How many there are."""
        return len(self.ends)

    @property
    def is_cut_short(self) -> bool:
        """True if the next pickle only ends too early."""
        return self.problem is not None and _CUT_SHORT.search(self.problem) is not None


def scan_pickle(data: bytes, *, file: str, deadline: Deadline) -> Pickles:
    """Look at all pickles at the start of `data`; a fragment of one counts, since it would run too.

    Raises:
        UnsafeFile: they import a name known to run code (`file.executes-code`), or one that torch's
            weights-only loader refuses (`file.unsafe-pickle`).
        LimitExceeded: too many opcodes, or out of time.
    """
    pickles = whole_pickles(data, file=file, deadline=deadline)
    dangerous, unknown = _imports(data, file)
    if dangerous:
        raise UnsafeFile("loading it runs code", file=file, found=_listed(dangerous))
    if unknown:
        raise UnsafeFile(
            "the pickle imports names that torch's weights-only loader refuses",
            file=file,
            found=_listed(unknown),
            code="file.unsafe-pickle",
        )
    return pickles


def whole_pickles(data: bytes, *, file: str, deadline: Deadline) -> Pickles:
    """Walk the pickles at the start of `data`, which bounds what picklescan will have to keep.

    Raises:
        LimitExceeded: too many opcodes, or out of time.
    """
    stream, ends, count = io.BytesIO(data), list[int](), 0
    while stream.tell() < len(data):
        try:
            for _ in pickletools.genops(stream):
                count += 1
                if count % _CHECK_EVERY == 0:
                    deadline.check(f"scanning {file}")
                if count > _MAX_OPCODES:
                    raise LimitExceeded(
                        "the pickle is too long",
                        file=file,
                        expected=f"at most {_MAX_OPCODES} opcodes",
                    )
        except PeftGuardError:
            raise
        # Broken pickles raise ValueError, UnicodeError, struct.error, OverflowError and others.
        except Exception as error:
            return Pickles(ends, shown(str(error)))
        ends.append(stream.tell())
    return Pickles(ends, None)


def _imports(data: bytes, file: str) -> tuple[list[str], list[str]]:
    """Names that would be imported: those known to be dangerous, and those torch does not know."""
    from picklescan.scanner import SafetyLevel, scan_pickle_bytes

    logging.getLogger("picklescan").setLevel(logging.CRITICAL)
    try:
        result = scan_pickle_bytes(io.BytesIO(data), file)
    except Exception as error:
        # It gives up on tricks that no ordinary pickle uses, such as names built on the stack.
        raise UnsafeFile(
            f"the pickle hides what it imports ({type(error).__name__})",
            file=file,
            code="file.unsafe-pickle",
        ) from None
    names = {f"{item.module}.{item.name}": item.safety for item in result.globals}
    dangerous = [name for name, safety in names.items() if safety is SafetyLevel.Dangerous]
    unknown = [name for name in names if not _ALLOWED.fullmatch(name)]
    return sorted(dangerous), sorted(unknown)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(shown(name) for name in names[:5]) + more


def broken_pickle(pickles: Pickles, file: str, seen: int, size: int) -> PeftGuardError:
    """The error for a pickle that does not reach its end within the `seen` bytes of `size`."""
    if pickles.is_cut_short and seen < size:
        return LimitExceeded(
            "the pickle is too long", file=file, expected=f"at most {seen} bytes beside tensors"
        )
    code = "file.truncated" if pickles.is_cut_short else None
    return MalformedFile(f"not a whole pickle: {pickles.problem}", file=file, code=code)
