"""The server: who asks, what is admitted, which worker decodes, and one reply to each request."""
