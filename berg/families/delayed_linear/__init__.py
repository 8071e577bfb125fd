"""Ridge regression on features of words in time, brought to volumes and delayed."""
