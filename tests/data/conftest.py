import nelbo  # noqa: F401  # before Lightning and torchvision, which it makes importable
