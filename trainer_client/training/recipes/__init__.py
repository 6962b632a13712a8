"""Recipes: runs that are composed of tasks, data and options."""
