import os

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

collect_ignore_glob = ["*/make_*.py"]  # scripts that make frozen values, run elsewhere

settings.register_profile("dev", max_examples=10, deadline=None)
settings.register_profile(
    "ci",
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("nightly", max_examples=5000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))


@pytest.fixture(autouse=True)
def _global_state_is_left_alone():
    """No test, and so nothing that it calls, may leave torch's global state changed."""
    before = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads())
    torch.manual_seed(0)
    yield
    after = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads())
    torch.set_default_dtype(before[0])
    torch.set_grad_enabled(before[1])
    torch.set_num_threads(before[2])
    assert after == before, f"(default dtype, grad mode, threads) changed from {before} to {after}"
