"""Small graphs that quantisers get wrong: each is a legal model, float does well on its samples, and it has a name.

`CASES` maps a name to the function that builds it; building one takes a tenth of a second.
"""

from collections.abc import Callable

from tests.converters.hostile_forms import FORMS
from tests.converters.hostile_net import Arrays, Case, run
from tests.converters.hostile_ranges import RANGES

__all__ = ["CASES", "Arrays", "Case", "run"]

CASES: dict[str, Callable[[], Case]] = {build.__name__.replace("_", "-"): build for build in (*RANGES, *FORMS)}
