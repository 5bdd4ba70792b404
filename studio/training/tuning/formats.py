"""Number formats of finished files."""

from __future__ import annotations

import torch

from studio.schema.training_tuning import NumberFormat

NUMBER_FORMATS: dict[NumberFormat, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
