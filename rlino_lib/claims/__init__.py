"""The ledger of claims, and what judges each from evidence. Importing the room registers every piece of evidence."""

from rlino_lib.claims import bandit, chains, clean_room, credit, environment, gradient  # noqa: F401
from rlino_lib.claims import head_to_head, length, real, sharpening  # noqa: F401, I001
