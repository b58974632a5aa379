"""Laws are tried here as those of the core are."""

import tests.core.conftest  # noqa: F401 (it loads the profile of Hypothesis)
