"""The process that runs ZeroMQ for a tcp:// address: what it does, what it tells the front, who keeps it alive."""
