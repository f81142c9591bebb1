"""The subcommands of ``python -m nelbo``, one module each.

A module has ``add_arguments(parser)`` and ``run(arguments)``; its docstring's first line is its help. It
imports what takes long when it runs, so that ``--help`` is answered at once. ``run`` raises ValueError or
OSError for what a user can put right, with a message of one line.
"""
