"""How bytes go to and from servers; one file a transport, one contract."""
