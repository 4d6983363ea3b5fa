"""What goes wrong, with the fields of the C++ interface."""

from . import _lathe


class Error(Exception):
    """Text fields that are not known are empty, numbers 0.

    code: "usage", "invalid", "unsupported", "io", "limit", "mismatch", or "internal", a bug.
    """

    code: str = "internal"
    message: str = ""
    file: str = ""
    line: int = 0
    column: int = 0
    node: str = ""
    op: str = ""
    expected: str = ""
    found: str = ""
    detail: str = ""

    def __reduce__(self):
        return type(self), self.args, self.__dict__


_lathe.set_error_class(Error)
