"""Everything mode over photos: prompts from a file, and what is written about the masks."""
