"""Output for people: terminal tables, report.html, comparisons, the W&B workspace."""
