"""SCALE-Sim's files and model: its `.cfg` and topology CSV in, its two reports out.

    config.read(.cfg), topology.read(.csv) -> layers -> model.counts -> report.run_scalesim

Reproduced exactly: compute cycles, SRAM reads and writes, utilisation, and with InterfaceBandwidth = CALC also the DRAM
columns (`dram.traffic`). Not reproduced: the stalls of InterfaceBandwidth = USER, sparsity, custom layouts,
Ramulator traces; the latter three are errors.
"""
