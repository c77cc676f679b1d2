"""Where a node keeps what must survive it: one seam (`core.node.store`), a store in SQLite and one in memory."""
