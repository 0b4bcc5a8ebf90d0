"""Which destinations an instance must reach. Pure."""
