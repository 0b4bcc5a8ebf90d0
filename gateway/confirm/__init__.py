"""Evidence that an archive has what it was sent: storage commitment, query."""
