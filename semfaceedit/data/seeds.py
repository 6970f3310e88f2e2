"""One seed from two numbers, so that every sample of a sequence has a seed of its own."""


def mixed_seed(seed: int, index: int) -> int:
    """A 63-bit seed; neighbouring numbers give unrelated ones."""
    value = (seed * 0x9E3779B97F4A7C15 + index * 0xBF58476D1CE4E5B9 + 1) & (2**64 - 1)
    value = ((value ^ (value >> 31)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (value ^ (value >> 29)) >> 1
