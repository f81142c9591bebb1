"""Sweeps: the jobs of ``-m``, one folder for each, and a table of all at the end.

A failed job does not stop the others. A sweep with the folder of an interrupted one resumes it.
What is known about a job is in its folder, so it is the same for every launcher, and after any crash.
"""
