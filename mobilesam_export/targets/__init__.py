"""Writers, one a target: a graph to artifacts in that runtime format."""
