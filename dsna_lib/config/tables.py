"""The paper's tables by name, and the forms in which they are printed."""

from typing import Literal

Form = Literal["markdown", "latex", "csv"]

# The book's own have names instead of numbers.
TITLES = {
    "I": "The attention maps of one model (Table I)",
    "II": "The merged map by dropout rate (Table II)",
    "single-stream": "With and without the expansive branch (Sec. IV-B)",
    "methods": "Region-mining methods under one protocol",
    "parts": "Shares of objects that maps cover",
    "similarity": "How alike the maps of two classes in one picture are, and what that does to annotations",
    "sensitivity": "What the paper leaves open, one choice at a time",
    "III": "Segmentation from annotations of different origin (Table III)",
    "IV": "Results on VOC val, by what they learn from (Table IV), and what came later",
    "V": "Results on VOC test, by what they learn from (Table V), and what came later",
    "VI": "IoU by class (Table VI)",
}
