"""The pictures of the documentation, one a file: what ``make figures`` runs."""
