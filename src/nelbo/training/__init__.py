"""The LightningModule, its callbacks, loggers and strategies."""
