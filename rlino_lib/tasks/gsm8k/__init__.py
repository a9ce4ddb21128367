"""GSM8K (chapter 02), and six ways to grade it."""
