"""Execution: phases and plans, run."""
