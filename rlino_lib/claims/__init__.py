"""The ledger of claims, and what judges each from evidence. Importing the room registers every piece of evidence."""

from rlino_lib.claims import (  # noqa: F401
    bandit,
    chains,
    clean_room,
    credit,
    environment,
    exploration,
    gradient,
    head_to_head,
    length,
    real,
    relatives,
    sharpening,
)
