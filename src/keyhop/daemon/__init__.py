"""The real world around a node: sockets, TLS, stores, key bits, configuration."""
