"""What the two ends of a line say to each other, and what they come to agree on."""
