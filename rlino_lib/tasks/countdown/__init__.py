"""Countdown (chapter 02): reach a target from some numbers."""
