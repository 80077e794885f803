"""Configurations that come with prismrank, found by name."""
