"""MDPs small enough to enumerate, and identities to machine precision. Nothing is sampled."""
