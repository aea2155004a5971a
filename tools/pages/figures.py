"""The figures that are drawn from ``results/``: one module a figure."""

from __future__ import annotations

from pages import key_figure, rates_figure, size_figure, table_iii_figure


def files() -> dict[str, str]:
    """Path to content, of every figure on light and on dark pages."""
    return key_figure.files() | size_figure.files() | rates_figure.files() | table_iii_figure.files()
