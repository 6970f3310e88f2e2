"""Pictures for people: grids, sheets, plots, video."""
