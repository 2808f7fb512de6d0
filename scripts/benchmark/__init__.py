"""tfzip against its peers, side by side in one run: what `scripts/bench` runs."""
