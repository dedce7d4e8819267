"""The manager's side of MQTT: one connection, who wrote a message, what is said back."""
