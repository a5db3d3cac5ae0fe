"""`kid`: the kernel distance between sets of pictures, by `compared_sets`."""

from functools import partial

from mace_exp.evaluation.metrics.compared_sets import SetDistance, set_metric
from mace_exp.evaluation.metrics.set_distances import kernel_distance

METRIC = set_metric(SetDistance("kid", kernel_distance, partial(kernel_distance, paired=True)))
