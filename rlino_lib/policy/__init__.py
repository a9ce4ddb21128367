"""A language model: load, score, sample. Knows no grader and no objective."""
