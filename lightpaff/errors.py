"""The error a user can act on."""


class UserError(ValueError):
    """Bad input or a bad machine state, told in one line.

    The message names the file, line or key, says what was found there and what to do. The command line
    prints it without a traceback and exits with code 2.
    """
