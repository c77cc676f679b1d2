"""Key of one line: to which pools it goes, how it leaves them, and when it is destroyed."""
