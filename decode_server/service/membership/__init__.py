"""How trainers learn that a server is there."""
