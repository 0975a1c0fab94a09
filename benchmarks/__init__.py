"""The demo, its real input, and the programs behind the published figures."""
