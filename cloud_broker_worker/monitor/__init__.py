"""A live view of the fleet over MQTT alone. In: what anybody publishes. Out: tables, lines, JSON."""
