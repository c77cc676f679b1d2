"""Designs side by side: what is measured, and how sure it is."""
