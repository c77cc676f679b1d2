"""How key comes to pairs without a link, and who grants the way."""
