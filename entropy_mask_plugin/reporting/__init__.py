"""Reports: tables, figures, records, training logs, comparison of runs, weight drift."""
