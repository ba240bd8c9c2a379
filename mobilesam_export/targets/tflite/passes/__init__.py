"""What is mended in the finished FlatBuffer, a pass a file."""
