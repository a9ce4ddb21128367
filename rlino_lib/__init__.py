"""RL in Name Only?, the thin library behind the book."""
