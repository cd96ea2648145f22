"""A real Mosquitto, real models, and what users see of them."""
