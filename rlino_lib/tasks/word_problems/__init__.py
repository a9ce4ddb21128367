"""Word problems made here (chapter 02)."""
