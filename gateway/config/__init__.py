"""The one configuration: a TOML file, checked as a whole, unknown keys refused."""
