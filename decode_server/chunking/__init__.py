"""From people's videos to chunks that are cheap to read at random, and the check that they still are."""
