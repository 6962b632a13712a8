"""What other libraries want an iterator of batches to look like; the client's core knows none of them."""
