"""Energy and area: `account.account` and `area.area` price counters and sizes by an energy table."""
