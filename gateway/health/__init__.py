"""How the box is, told by MQTT and Prometheus, and the signed commands it obeys. See README.md beside this file."""
