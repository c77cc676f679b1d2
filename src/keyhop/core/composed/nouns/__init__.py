"""What the rooms of a key manager speak of: messages and their shapes, ranges, names, requests, books."""
