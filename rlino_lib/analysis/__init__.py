"""Data frames in, numbers out: statistics, growth of responses, pass@k. Knows no model."""
