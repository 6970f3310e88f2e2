"""Procedural faces with exact pose, depth and label maps."""
