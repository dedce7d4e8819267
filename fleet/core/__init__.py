"""The rules of a fleet, without I/O: order of messages, goals, targets, rollouts, needs and their pace."""
