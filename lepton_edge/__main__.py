"""`python -m lepton_edge` is `lepton-edge`."""

from lepton_edge.cli import main

main(prog_name="lepton-edge")
