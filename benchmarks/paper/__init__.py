"""The papers' table on a real broker: their methods and ours, on the same calls, over the same links."""
