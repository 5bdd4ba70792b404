"""Plots (A1111's script X/Y/Z plot): one request becomes many, each a cell of a sheet.

axes     how the values of an axis are read, and what they change
cells    the requests of all cells
"""

from studio.plots.cells import AXES, expanded, fixed_plot, fixed_values, plot_type

__all__ = ["AXES", "expanded", "fixed_plot", "fixed_values", "plot_type"]
