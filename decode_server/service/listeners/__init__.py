"""Where clients connect: a listener a transport, and who may connect there."""
