"""The contract between board and cloud: topics, messages, bytes. Pure: no I/O, no models, no sockets."""
