"""What `lepton-edge demo` shows, and the small trained models that it shows it with."""
