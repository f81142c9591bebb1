"""The folder of a run: names of its files, readers, and writers of those with a format of their own."""
