"""What a node decides: pure, without clock, socket, file, thread, log or randomness."""
