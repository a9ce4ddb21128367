"""The same objectives inside TRL's trainer, on as many GPUs as accelerate starts."""
