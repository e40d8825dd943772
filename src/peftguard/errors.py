"""Everything peftguard raises on purpose.

PeftGuardError
├── InputError              the adapter (or what was typed) cannot be judged
│   ├── TargetNotFound        nothing readable at that path or hub id
│   ├── MalformedFile         bytes that break their own format
│   ├── LimitExceeded         a size, count, depth or time limit was reached
│   ├── UnsafeFile            a file that runs code when it is loaded
│   └── UnsupportedAdapter    read, but its update is not defined without more
├── MissingExtra            an optional dependency is needed
└── SettingsError           a setting, flag or config file is wrong

During a scan an `InputError` or `MissingExtra` becomes a finding with the error's `code` and the
result's verdict is `unknown`; it never stops the batch. Anywhere else the command line turns an
error into one line on stderr and an exit status (see `peftguard.cli`).
"""

from __future__ import annotations


class PeftGuardError(Exception):
    """Root of every error raised on purpose."""

    code: str = "error.internal"
    """Finding code that a scan reports this error under."""


class InputError(PeftGuardError):
    """An input that cannot be judged; says which file, which key, what was expected and found.

    `code` names the finding more closely than the class does (`file.truncated`).
    """

    code = "file.malformed"

    def __init__(
        self,
        problem: str,
        *,
        file: str | None = None,
        key: str | None = None,
        expected: object = None,
        found: object = None,
        code: str | None = None,
    ) -> None:
        self.code = code or type(self).code
        self.problem, self.file, self.key = problem, file, key
        self.expected, self.found = expected, found
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        where = ": ".join(part for part in (self.file, self.key) if part)
        text = f"{where}: {self.problem}" if where else self.problem
        if self.expected is not None:
            text += f"; expected {_short(self.expected)}"
        if self.found is not None:
            text += f"; found {_short(self.found)}"
        return text


class TargetNotFound(InputError):
    """Nothing readable at that path or hub id."""

    code = "file.not-found"


class MalformedFile(InputError):
    """Bytes that break the rules of their own format."""

    code = "file.malformed"


class LimitExceeded(InputError):
    """A limit of `peftguard.limits.Limits` was reached."""

    code = "file.limit-reached"


class UnsafeFile(InputError):
    """A file that would run code when loaded the ordinary way."""

    code = "file.executes-code"


class UnsupportedAdapter(InputError):
    """An adapter whose update is not defined by its own files."""

    code = "method.unsupported"


class MissingExtra(PeftGuardError):
    """A feature needs an optional dependency that is not installed."""

    code = "file.needs-extra"

    def __init__(self, what: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{what} needs an optional dependency: pip install 'peftguard[{extra}]'")


class SettingsError(PeftGuardError):
    """A setting, flag or config file is wrong."""


def _short(value: object, width: int = 120) -> str:
    """A stranger chose this text: it is echoed neither at full length nor with control bytes."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= width else f"{text[: width - 1]}…"
