"""Executors: where independent tasks are done.

serial      here, one after the other            processes   in other processes of this machine
ray         on a Ray cluster
"""

from keydnn.experiment.execution.executors.executor import Done, IExecutor, TaskFailed, Work, make_executor
from keydnn.experiment.execution.executors.processes import Processes
from keydnn.experiment.execution.executors.ray import Ray

__all__ = ["Done", "IExecutor", "Processes", "Ray", "TaskFailed", "Work", "make_executor"]
