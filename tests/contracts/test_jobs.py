"""Leased work against the contract on SQLite and PostgreSQL."""

from relens.testing.jobs import LeaseContract, PlanContract, WorkerContract


class TestLeases(LeaseContract):
    pass


class TestPlans(PlanContract):
    pass


class TestWorkers(WorkerContract):
    pass
