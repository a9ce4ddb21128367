"""The ledger of claims, and what judges each from evidence. Importing the room registers every piece of evidence."""

from rlino_lib.claims import bandit, chains, clean_room, credit, gradient, head_to_head, length, real, sharpening  # noqa: F401
