"""A key management system that turns QKD links into a network that delivers keys."""

__version__ = "0.1.0"
