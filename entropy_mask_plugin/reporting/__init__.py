"""Reports: tables, figures, training logs, comparison of runs, weight drift."""
