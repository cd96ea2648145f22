"""Everything around the programs: broker set-up, services, containers, the demo on one machine."""
