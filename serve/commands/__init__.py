"""The commands of `prismrank`, one module each."""
