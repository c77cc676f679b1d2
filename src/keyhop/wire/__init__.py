"""Formats as they stand on the wire; nothing of ours is imported here."""
