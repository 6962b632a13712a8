"""What lies in the folders people name: which files there are, what they are called, and what became of each."""
