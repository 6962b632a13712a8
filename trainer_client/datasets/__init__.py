"""Annotations as data sets: read once from the forms they are published in, kept as columns, opened without reading."""
