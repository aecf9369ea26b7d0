"""Image sets and where they come from: folders, the hub, captions, built-in samples, corruptions, hold-outs."""
