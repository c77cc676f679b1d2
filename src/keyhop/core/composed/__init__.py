"""A key manager put together from the parts of any design: what the survey's systems run on, key-blind and pure.

A `Site` is one key manager. It has a `Line` to each key manager with which it shares key: local (a QKD link) or
distant (relayed). What differs between designs is four small rooms that a line is given when it is made: how fresh
bits are agreed (`agreement`), to which pools they go (`dealing`), how a key is taken out (`serving`), and how key
comes to distant pairs (`relaying`).
"""
