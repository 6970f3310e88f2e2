"""Distances between pictures, label maps and sets of them."""
