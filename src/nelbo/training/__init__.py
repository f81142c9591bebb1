"""Training: the LightningModule, and the callbacks that watch it."""
