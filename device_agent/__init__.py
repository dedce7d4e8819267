"""lepton-edge on a device. Light: imports no converter, no trainer, no database."""
