"""Real daemons with pretend modules on one machine."""
