"""Components of nelbo for this project. The yaml files in ``conf/`` name them."""
