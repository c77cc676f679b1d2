"""Adapters from a supply interface to the core, one file each."""
