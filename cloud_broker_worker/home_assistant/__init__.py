"""Shows a fleet in Home Assistant. In: status messages. Out: discovery messages, or their removal."""
