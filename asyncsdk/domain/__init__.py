"""What values mean: ids, names and paths, filters, prediction rows. Pure: no I/O, nothing above imported."""
