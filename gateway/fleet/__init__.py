"""Central IT: every box at a glance, from what the boxes say by MQTT. Runs on a machine of its own; see README.md."""
