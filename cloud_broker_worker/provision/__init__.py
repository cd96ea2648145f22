"""Sets up and keeps a broker with a certificate authority of its own: who is let in, and who no longer."""
