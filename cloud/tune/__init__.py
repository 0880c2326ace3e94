"""What is done with gradients of the KL to the source: see widen.py, recover.py and scales.py."""

from edgesdk.cloud.tune.recover import recover_levels
from edgesdk.cloud.tune.scales import tune_scales
from edgesdk.cloud.tune.student import Student
from edgesdk.cloud.tune.widen import WIDE_BITS, quantization_costs, widen

__all__ = ["WIDE_BITS", "Student", "quantization_costs", "recover_levels", "tune_scales", "widen"]
