"""Files of weights: honest ones, and hostile ones that must not be read."""
