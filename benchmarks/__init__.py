"""Measurements that the documentation quotes, each one command."""
