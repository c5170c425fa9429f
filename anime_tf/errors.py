"""The one exception that is meant for the person at the keyboard."""


class UserError(ValueError):
    """Bad input: what was wrong, where, and what to do, in one clear sentence.

    The command line prints the sentence without a stack trace and exits with code 2.
    """
