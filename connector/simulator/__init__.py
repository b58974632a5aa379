"""A simulator of the platform: it implements the API's reference, keeps a ledger by record, and fails on demand."""

from connector.simulator.faults import (
    Chance,
    Faults,
    Outage,
    Poison,
    RecordCode,
    ScriptStep,
    load_faults,
    load_script,
    parse_faults,
)
from connector.simulator.ledger import Entry, LedgerTotals
from connector.simulator.server import Simulator
from connector.simulator.settings import SendingList, SimulatorSettings, Switches, load_switches
from connector.simulator.thread import SimulatorThread

__all__ = [
    "Chance",
    "Entry",
    "Faults",
    "LedgerTotals",
    "Outage",
    "Poison",
    "RecordCode",
    "ScriptStep",
    "SendingList",
    "Simulator",
    "SimulatorSettings",
    "SimulatorThread",
    "Switches",
    "load_faults",
    "load_script",
    "load_switches",
    "parse_faults",
]
