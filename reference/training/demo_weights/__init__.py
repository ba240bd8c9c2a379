"""How the bundled demonstration weights are made; start at README.md."""
