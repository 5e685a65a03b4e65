"""Speed, as ratios taken in one run; each module is a command."""
