"""Changes of the graphs that preserve what the weights compute exactly, and what all layouts share."""
