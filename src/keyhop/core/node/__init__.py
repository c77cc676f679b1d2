"""One key manager: what it knows, what it decides, what it books."""
