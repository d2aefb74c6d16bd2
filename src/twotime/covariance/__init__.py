"""Error bars: the covariance of speckle and photon noise, bands, and the judgement of residuals."""
