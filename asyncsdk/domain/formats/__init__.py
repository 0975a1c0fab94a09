"""Files of other programs, read and written: one module for each format."""
