"""Figures of fits and posteriors: functions from values to figures and axes, and their files."""

from twotime.plots.fit import cuts as cuts
from twotime.plots.fit import functions as functions
from twotime.plots.fit import lag_cuts as lag_cuts
from twotime.plots.fit import maps as maps
from twotime.plots.fit import save_figures as save_figures
from twotime.plots.fit import scaling as scaling
from twotime.plots.fit import two_time as two_time
from twotime.plots.interval import profile as profile
from twotime.plots.posterior import corner as corner
from twotime.plots.posterior import energy as energy
from twotime.plots.posterior import predictive_maps as predictive_maps
from twotime.plots.posterior import rank as rank
from twotime.plots.posterior import shards as shards
from twotime.plots.posterior import trace as trace
