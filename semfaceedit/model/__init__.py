"""The generator: rays, manifolds, both modules, rendering, checkpoints and discriminators."""
