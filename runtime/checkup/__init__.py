"""What `edge-agent doctor` and `cloud-broker-worker doctor` have in common. In: settings. Out: lines, JSON."""
