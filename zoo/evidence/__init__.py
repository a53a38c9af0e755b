"""What measured accuracies show: spreads, paired differences, tables, figures; no training here."""
