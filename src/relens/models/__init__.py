"""Models: reading them from the formats that people have, and turning them into what the runtimes run."""
