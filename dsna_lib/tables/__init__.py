"""The paper's tables: what their rows are, how they are measured, judged and printed."""
