"""The `framefeed` command, its demo, and how it minds child processes."""
