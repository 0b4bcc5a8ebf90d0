"""Couriers, the lanes they run in, and what a peer's answer means."""
