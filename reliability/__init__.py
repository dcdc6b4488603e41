"""Long reliability runs and the parts that tests share with them; not installed."""
