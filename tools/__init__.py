"""What builds the book and its front page: `python -m tools.book`, `python -m tools.report`."""
