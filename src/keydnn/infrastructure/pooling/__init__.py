"""Import paths that older programs use."""
