"""The kinds of products that machines multiply: types of the operands and of the result, and the precision."""

from __future__ import annotations

import ml_dtypes
import numpy as np

KINDS = {
    "bf16": (ml_dtypes.bfloat16, ml_dtypes.bfloat16, None), "f16": (np.float16, np.float16, None),
    "f32": (np.float32, np.float32, None), "tf32": (np.float32, np.float32, "tf32"),
    "i8": (np.int8, ml_dtypes.bfloat16, None), "i8 summed": (np.int8, np.int32, None),
    "f8": (ml_dtypes.float8_e4m3fn, np.float16, None),
}  # fmt: skip
