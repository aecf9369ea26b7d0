"""Image sets, and where they come from: folders, the hub, captions, samples, corruptions, hold-outs."""
