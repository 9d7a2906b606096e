"""config.yaml as a checked record."""
