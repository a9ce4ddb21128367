"""Tensors in, weights out: rewards, advantages, credit, the loss. Knows no model and no task."""
