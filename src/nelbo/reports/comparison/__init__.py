"""Several runs beside each other: what differs, whether their figures may be compared, and by how much."""
