"""Training: one step, what it optimises, what it watches."""
