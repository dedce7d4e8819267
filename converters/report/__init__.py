"""report.html: one self-contained page, no script, nothing fetched; lies beside the bundle, never sent to a device."""
