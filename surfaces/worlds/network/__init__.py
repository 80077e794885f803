"""A simulated professional network: members, companies, jobs, posts, ads and people, with four surfaces of events.

No package brings real histories of jobs, people, feeds or ads, so these are simulated, from latent interests that hang
on real text (see `onet`, whose licence asks for the attribution there). What is measured on it says how well a ranking
recovers the simulation, and nothing about real members.
"""

from surfaces.worlds.network.ceiling import Ceiling
from surfaces.worlds.network.simulator import Network

__all__ = ["Ceiling", "Network"]
