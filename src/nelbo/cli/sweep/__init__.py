"""Sweeps: the jobs of ``-m``, each in a folder of its own, and the table of them at the end.

A job that fails does not take the others down, and a sweep into the folder of an interrupted one goes on.
What is known about a job is in its folder, so it is the same for every launcher, and after any crash.
"""
