"""Deterministic simulation: whole workers on a simulated RabbitMQ, in an order that a seed decides."""
