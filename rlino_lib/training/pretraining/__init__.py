"""The small base models: demonstrators and the loop that learns from them."""
