"""Commands that are more than one call: what operators type to change the embedder of a live collection."""
