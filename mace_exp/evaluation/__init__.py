"""What a model draws before and after an edit, measured."""
