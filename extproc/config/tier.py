"""Tiers, which several sections name. Must not know: what a tier is worth."""

import enum


class Tier(enum.StrEnum):
    """How much a principal may use."""

    FREE = "free"
    BASIC = "basic"
    PRO = "pro"
    ENTERPRISE = "enterprise"
