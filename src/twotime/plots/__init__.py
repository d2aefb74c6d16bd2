"""Figures: functions from values to axes, and files of them."""

from twotime.plots.fit import cuts as cuts
from twotime.plots.fit import functions as functions
from twotime.plots.fit import lag_cuts as lag_cuts
from twotime.plots.fit import maps as maps
from twotime.plots.fit import save_figures as save_figures
from twotime.plots.fit import scaling as scaling
from twotime.plots.fit import two_time as two_time
