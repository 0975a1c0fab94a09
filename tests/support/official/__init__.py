"""Official clients of services, unmodified, each in an environment and a process of its own."""
