"""GSM8K (chapter 02), and five ways to grade it."""
