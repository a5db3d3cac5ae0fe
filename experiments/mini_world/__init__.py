"""The recipe of the embedded model: the world it was trained on, its training, its evaluation."""
