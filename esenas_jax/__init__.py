"""ES-ENAS and augmented random search on accelerators.

Reading order is dependency order: types, spaces, policies, tasks; strategies, controllers,
objectives; rollout, population, search, answer.
"""

from esenas_jax import controllers, objectives, policies, spaces, strategies, tasks
from esenas_jax.answer import Answer, answer
from esenas_jax.objectives import shifted_return
from esenas_jax.population import population
from esenas_jax.search import Metrics, Search, SearchState, Starts, search

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Metrics",
    "Search",
    "SearchState",
    "Starts",
    "answer",
    "controllers",
    "objectives",
    "policies",
    "population",
    "search",
    "shifted_return",
    "spaces",
    "strategies",
    "tasks",
]
