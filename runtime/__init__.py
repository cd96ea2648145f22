"""What both ends share: the doors to llama.cpp and to MQTT, and sampling."""
