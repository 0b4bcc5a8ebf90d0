"""Central IT: sees all boxes by way of the broker, and signs what they are told to do."""
