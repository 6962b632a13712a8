"""Tasks: what is learned from a batch, each on the seam of rows and a loss."""
