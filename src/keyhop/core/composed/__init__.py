"""A key manager put together from the parts of any design: what the survey's systems run on, key-blind and pure.

A `Site` is one key manager. It has a `Line` to each key manager with which it shares key: local (a QKD link) or
distant (relayed). What differs between designs is small rooms that `rooms` gives a line when it is made: how fresh bits
are agreed and how the ends talk (`talk/`), to which pools they go, how a key is taken out and when it is destroyed
(`stock/`), and how key comes to distant pairs (`relay/`). What they all speak of is in `nouns/`.
"""
