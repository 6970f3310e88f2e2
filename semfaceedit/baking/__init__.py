"""Faces as layered textures over the surfaces of their checkpoint: no network draws them."""
