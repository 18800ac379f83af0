"""The error a user can act on."""

_LONGEST_QUOTE = 200
"""Characters that are quoted of another library's error."""


class UserError(ValueError):
    """Bad input or a bad machine state, told in one line.

    The message names the file, line or key, says what was found there and what to do. The command line
    prints it without a traceback and exits with code 2.
    """


def one_line(error: Exception) -> str:
    """What another library's error says, shortened to fit into a `UserError`'s line."""
    return " ".join(str(error).split())[:_LONGEST_QUOTE] or type(error).__name__
