"""How the demo's pair of models is made: dialogues with tool calls in, two GGUF files out."""
