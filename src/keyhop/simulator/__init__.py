"""The pretend world: virtual clock, topologies, faults."""
