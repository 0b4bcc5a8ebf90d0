"""Scanners, archives and bad lines for tests and the demo. Imports nothing of the gateway but its words: what is
built from the gateway's own writer cannot find the gateway's bugs."""
