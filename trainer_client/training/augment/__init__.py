"""Decoded pixels to what models take, and what is hidden or mixed of them; seeded by clip."""
