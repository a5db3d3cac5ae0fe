"""`fid`: the Frechet distance between sets of pictures, by `compared_sets`."""

from mace_exp.evaluation.metrics.compared_sets import SetDistance, set_metric
from mace_exp.evaluation.metrics.set_distances import frechet_distance

METRIC = set_metric(SetDistance("fid", frechet_distance, frechet_distance))
