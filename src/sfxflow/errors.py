"""The one exception that a person is meant to read."""


class InputError(Exception):
    """Something that the user gave is wrong: the command prints the message without a traceback and exits with status 1.

    The message says what is wrong, in which file, row or key, what was expected and what to do.
    """


class FrameError(Exception):
    """One frame can't be read or processed: it is recorded as failed and the others go on."""
