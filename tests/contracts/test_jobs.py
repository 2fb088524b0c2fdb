"""Leased work against the contracts on SQLite and PostgreSQL."""

from relens.testing.jobs import LeaseContract, PlanContract
from relens.testing.workers import WorkerContract


class TestLeases(LeaseContract):
    pass


class TestPlans(PlanContract):
    pass


class TestWorkers(WorkerContract):
    pass
