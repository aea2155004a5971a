"""Who computes the dense CRF. Like a device it is no part of a recipe: what comes out is the same up to rounding."""

from __future__ import annotations

from typing import Literal

Backend = Literal["auto", "pydensecrf", "torch"]
