"""Durable custody: the only room that touches the data partition, and the only state that survives."""
