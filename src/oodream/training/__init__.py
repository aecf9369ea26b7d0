"""The second half of the papers: losses, latent adapters, batches, augmentation, the training loop."""
