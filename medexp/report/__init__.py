"""Run directories to tables and plots: reads what runs wrote, and imports no torch.

`load` reads, `tables` arranges, `render` writes text, `plots` draws.
"""
