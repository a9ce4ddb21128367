"""The ledger of claims, and what judges each from evidence."""
