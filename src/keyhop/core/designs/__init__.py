"""Key managers as compositions of policy parts, and the table that names them."""
