"""Photographs and label maps: layouts on disk, alignment, pose, the packed cache."""
