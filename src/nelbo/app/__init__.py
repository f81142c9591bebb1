"""The composition root: from a Hydra configuration to objects that work together.

The only package that knows Hydra. torch and Lightning are imported when a job begins, so that ``--help``,
``--cfg job`` and a misspelt option are answered at once.
"""
