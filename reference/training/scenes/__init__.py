"""Generated pictures with exact masks: to train on and to measure on; start at README.md."""
