"""The one exception that reaches a user as a sentence instead of a traceback."""


class UserError(ValueError):
    """Something the user can put right; its text names what was expected, what was found and the way out.

    The command line prints the text alone and exits with code 2.
    """
