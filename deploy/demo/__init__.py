"""The whole of Hunch on one machine: a broker, a worker, agents, and what they do, shown live."""
