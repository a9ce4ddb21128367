"""The one exception that the command line turns into a single line on stderr and exit code 2."""


class RlinoError(Exception):
    """Something that the user can mend: a bad option, a bad file, a run that trains nothing."""
