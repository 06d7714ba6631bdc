"""ES-ENAS and augmented random search on accelerators.

Reading order is dependency order: types, spaces, policies, tasks; strategies, controllers,
objectives; rollout, population, search, answer, runs; rules, learners, asynchronous, low_memory,
pretraining.
"""

from esenas_jax import controllers, objectives, policies, rules, spaces, strategies, tasks
from esenas_jax.answer import Answer, Front, act, choose_answer, pareto_front
from esenas_jax.asynchronous import Asynchronous, AsynchronousState, asynchronous
from esenas_jax.learners import Learners, LearnersState, learners
from esenas_jax.low_memory import LowMemory, LowMemoryMetrics, LowMemoryState, low_memory
from esenas_jax.objectives import shifted_return
from esenas_jax.population import Population
from esenas_jax.pretraining import gradient_training
from esenas_jax.search import Metrics, Search, SearchState, Starts, es_enas

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Asynchronous",
    "AsynchronousState",
    "Front",
    "Learners",
    "LearnersState",
    "LowMemory",
    "LowMemoryMetrics",
    "LowMemoryState",
    "Metrics",
    "Population",
    "Search",
    "SearchState",
    "Starts",
    "act",
    "asynchronous",
    "choose_answer",
    "controllers",
    "es_enas",
    "gradient_training",
    "learners",
    "low_memory",
    "objectives",
    "pareto_front",
    "policies",
    "rules",
    "shifted_return",
    "spaces",
    "strategies",
    "tasks",
]
