"""The SDK: requests and answers without I/O, a sync and an async shell."""
