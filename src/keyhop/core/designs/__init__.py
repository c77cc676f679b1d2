"""Key managers as compositions of policy parts, and the table that names them."""

from __future__ import annotations

from keyhop.core.designs.design import Design
from keyhop.core.designs.keyhop import KEYHOP

DESIGNS: dict[str, Design] = {KEYHOP.name: KEYHOP}

__all__ = ["DESIGNS", "Design"]
