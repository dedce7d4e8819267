"""The installed version of lepton-edge."""

import importlib.metadata

VERSION = importlib.metadata.version("lepton-edge")
