"""Faces as layered textures over the surfaces of their checkpoint, for viewers without a network."""
