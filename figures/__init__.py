"""The figures of the documentation, one module each; ``make figures`` runs them."""
