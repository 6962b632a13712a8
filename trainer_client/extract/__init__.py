"""Features and measures of content of every clip of a data set, in files that others read; no training."""
