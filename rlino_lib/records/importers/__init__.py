"""Logs and responses of other libraries as run folders: `import_run`, and FORMATS, one row and one module a format.

A file that is read here was written by somebody else: reading is bounded, nothing is evaluated or unpickled, and a text
stays a text. What a file does not say stays empty.
"""

from rlino_lib.records.importers.into_run import FORMATS, import_run

__all__ = ["FORMATS", "import_run"]
