"""The yaml files of nelbo, as the package ``nelbo.conf``: ``pkg://nelbo.conf`` on a search path of Hydra."""
