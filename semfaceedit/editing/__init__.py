"""Faces to edit: inversion, edits through the label map, transfer, face projects."""
