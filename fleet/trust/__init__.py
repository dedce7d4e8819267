"""Who is believed: the operator's and the manager's keys."""
