"""The functional interface under the module path of its document; see `twotime.compat.homodyne`."""

from twotime.compat.homodyne import JAX_AVAILABLE as JAX_AVAILABLE
from twotime.compat.homodyne import batch_chi_squared as batch_chi_squared
from twotime.compat.homodyne import clear_meshgrid_cache as clear_meshgrid_cache
from twotime.compat.homodyne import compute_chi_squared as compute_chi_squared
from twotime.compat.homodyne import compute_g1_diffusion as compute_g1_diffusion
from twotime.compat.homodyne import compute_g1_shear as compute_g1_shear
from twotime.compat.homodyne import compute_g1_total as compute_g1_total
from twotime.compat.homodyne import compute_g2_scaled as compute_g2_scaled
from twotime.compat.homodyne import compute_g2_scaled_with_factors as compute_g2_scaled_with_factors
from twotime.compat.homodyne import get_cache_stats as get_cache_stats
from twotime.compat.homodyne import get_cached_meshgrid as get_cached_meshgrid
from twotime.compat.homodyne import get_device_info as get_device_info
from twotime.compat.homodyne import get_performance_summary as get_performance_summary
from twotime.compat.homodyne import gradient_chi2 as gradient_chi2
from twotime.compat.homodyne import gradient_g2 as gradient_g2
from twotime.compat.homodyne import hessian_chi2 as hessian_chi2
from twotime.compat.homodyne import hessian_g2 as hessian_g2
from twotime.compat.homodyne import jacobian_g2 as jacobian_g2
from twotime.compat.homodyne import jax_available as jax_available
from twotime.compat.homodyne import numpy_gradients_available as numpy_gradients_available
from twotime.compat.homodyne import validate_backend as validate_backend
from twotime.compat.homodyne import vectorized_g2_computation as vectorized_g2_computation
