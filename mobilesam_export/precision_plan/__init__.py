"""Which precision, and which parts stay exact: decided on the weights at hand, kept as a file, repeated from it."""
