"""Studies that are rebuilt from the library with one command each."""
