"""The exception that the command line turns into a single line on stderr and exit code 2, and a warning like it."""


class RlinoError(Exception):
    """An error that the user can fix: a bad option, a bad file, a run that trains nothing."""


class RlinoWarning(UserWarning):
    """Something that the user should know; the command line goes on after a single line on stderr."""
