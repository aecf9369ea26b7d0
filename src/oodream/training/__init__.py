"""The second half of the papers: sources, batches, augmentation, losses, latent adapters and the loop."""
