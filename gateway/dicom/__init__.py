"""The network and file skin: what the wire and Part 10 files look like, without knowing whose they are."""
