"""From a media file to its packet index: what is in it, what depends on what, what is damaged."""
