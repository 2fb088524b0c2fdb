"""A model in int8 as a new version of it, made with pictures and compared with the original before it comes in.

What is worth too little is refused, and then nothing is left of it. Which lens uses the version is decided elsewhere.
"""

from relens.quantization.fidelity import DEFAULT_BOUNDS, Bounds
from relens.quantization.versions import Look, Quantized, Report, Sample, quantize, require_quantizable, unreported

__all__ = [
    "DEFAULT_BOUNDS",
    "Bounds",
    "Look",
    "Quantized",
    "Report",
    "Sample",
    "quantize",
    "require_quantizable",
    "unreported",
]
