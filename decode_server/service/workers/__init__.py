"""The processes that decode: their supervision, their messages, where they run."""
