"""Named precision recipes, one file a target."""
