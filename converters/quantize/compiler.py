"""One canonical graph, calibrated once, from which the file of every profile is made."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from converters.artifact import Artifact, write_artifact
from converters.calibrate import Method, Statistics
from converters.outcome import KeptFloat
from converters.quantize.constraints import Constraints
from converters.quantize.deviation import Deviation
from converters.quantize.encodings import Encodings, choose_encodings
from converters.quantize.nodata import store_weights
from converters.quantize.plan import Plan, plan
from converters.quantize.profiles import Profile
from converters.quantize.qdq import write_qdq
from converters.quantize.units import constant, find_units
from converters.quantize.weights import Floats, Known
from converters.write.float16 import to_float16
from lepton_edge.errors import UnsupportedOperatorError

CANDIDATES: tuple[Method, ...] = ("mse", "minmax")
"""What `auto` chooses from, the preferred one first. Percentile and entropy clip as mse does, with less reason: they
are left to those who ask."""
CLEARLY = 0.9
"""Another method must bring the deviation below this share of the preferred one's to be taken."""


def activations(graph: ir.Graph) -> list[str]:
    """The tensors that some profile could hold in int8: all that plans ask the statistics for."""
    possible = [unit for unit in find_units(graph) if unit.rule is not None]
    values = [value for unit in possible for value in (*unit.data, *unit.outputs) if constant(value) is None]
    return list(dict.fromkeys(value.name for value in values if value.name))


class Compiler:
    """Makes plans and files.

    Attributes:
        model: the canonical graph.
        units: of the graph.
        statistics: of the calibration.
        profiles: that files are made for, by format; of each format the one of this host first.
        left_out: variants that are planned and were not written, with the reasons.
    """

    def __init__(
        self,
        model: ir.Model,
        statistics: Statistics,
        profiles: Sequence[Profile],
        *,
        means: Mapping[str, Floats] | None = None,
        keep_graphs: bool = False,
    ) -> None:
        """means: of channels (`channel_means`), to make up for what weights lose on average.

        keep_graphs: keep what TFLite files are written from, so that they can be written in another layout.
        """
        self.model = model
        self.units = find_units(model.graph)
        self.statistics = statistics
        self.profiles = profiles
        self.left_out: dict[str, str] = {}
        self._keep_graphs = keep_graphs
        self._encodings: dict[Method, Encodings] = {}
        self._known = Known(means)

    def plan(self, profile: Profile, constraints: Constraints) -> Plan:
        """What is int8 on a profile."""
        return plan(self.units, self._encoded(constraints.method), constraints, profile)

    def quantised(self, made: Plan) -> ir.Model:
        """The plan as a graph."""
        return write_qdq(self.model, made, self._known)

    def artifacts(self, constraints: Constraints, folder: Path) -> list[Artifact]:
        """Write the file of every profile that gains from int8 at all."""
        plans = [self.plan(profile, constraints) for profile in self.profiles]
        self.left_out.clear()
        written = [artifact for made in plans if made.pays and (artifact := self._tried(made, folder))]
        self._known.forget()
        return written

    def _tried(self, made: Plan, folder: Path) -> Artifact | None:
        """The plan's file; None where its runtime lacks an operator that the plan wants."""
        try:
            return self.artifact(made, folder)
        except UnsupportedOperatorError as error:
            self.left_out[made.profile.variant] = str(error)
            return None

    def choose_method(self, deviation: Deviation) -> Method:
        """The way of choosing ranges that keeps the outputs closest on a few calibration samples.

        Raises:
            SelfTestError: the runtime does not take the quantised graph.
        """
        host = self.profiles[0]
        best: Method = CANDIDATES[0]
        least = self.deviation(self.plan(host, Constraints(best)), deviation)
        for method in CANDIDATES[1:]:
            found = self.deviation(self.plan(host, Constraints(method)), deviation)
            if found < CLEARLY * least:
                best, least = method, found
        return best

    def deviation(self, made: Plan, deviation: Deviation) -> float:
        """How far a plan's outputs lie from float's, by ONNX Runtime whatever the plan's own runtime is.

        Raises:
            SelfTestError: it does not take the quantised graph.
        """
        return deviation.of(self.quantised(made), optimise=made.profile.format == "onnx")

    def _encoded(self, method: Method) -> Encodings:
        if method not in self._encodings:
            self._encodings[method] = choose_encodings(self.units, self.statistics, method)
        return self._encodings[method]

    def artifact(self, made: Plan, folder: Path) -> Artifact:
        """Write one plan's file into the workspace.

        Raises:
            UnsupportedOperatorError: its runtime lacks operators; all are named.
        """
        model = self.quantised(made)
        if made.profile.format == "onnx":
            store_weights(model, keep=_kept(made), known=self._known)
        else:  # TFLite has no float kernel with int8 weights that is as fast as float's
            model = to_float16(model, scaled=False)
        artifact = write_artifact(model, made.profile, "int8", folder, keep_graph=self._keep_graphs)
        return replace(artifact, int8_macs=made.int8_share, notes=_notes(made))


def _kept(made: Plan) -> set[str]:
    """Weights of the units that stay float for accuracy's sake."""
    weights = [made.units[index].weight for index in made.lossy]
    return {value.name or "" for value in weights if value is not None}


def _notes(made: Plan) -> list[KeptFloat]:
    """The operators that stay float though they could have been int8 somewhere, and control flow."""
    return [
        KeptFloat(node=made.units[index].name, operator=made.units[index].operator, reason=reason)
        for index, reason in sorted(made.reasons.items())
        if made.units[index].expected
    ]
