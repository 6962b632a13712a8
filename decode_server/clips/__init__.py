"""From a request and a packet index to the pixels of a clip. It knows no sockets and no queues."""
