"""What `convert` found out: typed, and as JSON the document of the command."""

from typing import Literal

from converters.measure.blame import Blame
from lepton_edge.bundle.manifest import Latency, Metric, Precision
from lepton_edge.errors import BudgetError
from lepton_edge.typed import Record

EXIT_DONE = 0


class SourceOutcome(Record, frozen=True, kw_only=True):
    """The source model. bytes: of its file; metric: None where nothing was evaluated."""

    format: str
    bytes: int
    metric: Metric | None = None


class Timing(Latency, frozen=True, kw_only=True):
    """A latency with the float model's beside it.

    Attributes:
        ratio: how many times as fast as the float model: the median over the rounds; None where that was not timed.
        ratio_low, ratio_high: the smallest and the largest over the rounds.
        rounds: interleaved; each gives one ratio of medians.
        runs: inferences timed in all.
    """

    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    rounds: int = 0
    runs: int = 0


class KeptFloat(Record, frozen=True, kw_only=True):
    """An operator that stays float in a quantised variant. node: its name in the canonical graph."""

    node: str
    operator: str
    reason: str


class VariantOutcome(Record, frozen=True, kw_only=True):
    """One variant, kept or refused.

    Attributes:
        file: its path in the bundle; "" where it was refused.
        metric, drop, drop_low, drop_high, agreement: None where nothing was evaluated; the drop is in points.
        tolerance: of the golden test.
        golden_spread: how far this host's kernels and thread counts differ on this file.
        speed: "measured", or "unmeasured" where this host is not of the variant's profile.
        reason: why it was refused, "" where it is kept.
        blame: the layers that add the most error, for a variant over its budget.
        kept_float: operators that stay float in it.
        judged_with: what answered in place of its runtime, where that is not installed here; "" where it answered.
        skipped: why it was not run here, for `evaluate` and `benchmark`; "" where it was.
    """

    name: str
    format: str
    precision: Precision
    profile: str
    file: str
    bytes: int
    metric: Metric | None = None
    drop: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None
    agreement: float | None = None
    int8_macs: float | None = None
    latency: list[Latency] = []
    memory: int = 0
    tolerance: float = 0.0
    golden_spread: float = 0.0
    speed: Literal["measured", "unmeasured"] = "unmeasured"
    kept: bool = True
    reason: str = ""
    blame: list[Blame] = []
    kept_float: list[KeptFloat] = []
    judged_with: str = ""
    skipped: str = ""


class SplitOutcome(Record, frozen=True, kw_only=True):
    """How many samples calibrated and how many judged; left_out: equal to a calibration sample, so not used."""

    calibration: int = 0
    evaluation: int = 0
    left_out: int = 0
    seed: int = 0


class Outcome(Record, frozen=True, kw_only=True):
    """The whole result.

    Attributes:
        bundle: the path written; "" where the budget could not be met.
        report: the path of the report.
        budget: in points; None where nothing was evaluated.
        kept: whether a bundle was written.
        reason: why not, or why float alone is in it; "" otherwise.
        warnings: what a user must know about what was kept.
        not_made: formats that were asked for and cannot be made of this model, with the reasons.
        versions: of the packages that decide the variants' bytes.
    """

    bundle: str
    name: str
    version: str
    source: SourceOutcome
    variants: list[VariantOutcome]
    seconds: float
    peak_rss_mb: float
    report: str = ""
    budget: float | None = None
    split: SplitOutcome = SplitOutcome()
    kept: bool = True
    reason: str = ""
    warnings: list[str] = []
    not_made: dict[str, str] = {}
    versions: dict[str, str] = {}

    @property
    def exit_status(self) -> int:
        """0 where a bundle was written, 3 where the budget cannot be met."""
        return EXIT_DONE if self.kept else BudgetError.exit_status
