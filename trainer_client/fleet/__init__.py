"""Which servers there are, which is asked, and again which other: pure decisions, no sockets."""
