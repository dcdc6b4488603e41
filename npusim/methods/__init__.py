"""Training methods: one file each, with a `METHOD`; the contract is in `npusim.method`."""
