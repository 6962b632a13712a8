"""What a run counts and waits for, and how it is exported; it decides nothing."""
