"""`framefeed show`: what a request would give, as a picture."""
