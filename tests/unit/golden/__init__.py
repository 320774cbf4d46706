"""Golden scenarios: one folder each, with the policy, what the mine says, and the plan that must come of it."""
