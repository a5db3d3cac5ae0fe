"""`kid`: the kernel distance between sets of pictures, by `compared_sets`."""

from mace_exp.evaluation.metrics.compared_sets import set_metric
from mace_exp.evaluation.metrics.set_distances import kernel_distance

METRIC = set_metric("kid", kernel_distance)
