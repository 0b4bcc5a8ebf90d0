"""Keys, certificates, TLS."""
