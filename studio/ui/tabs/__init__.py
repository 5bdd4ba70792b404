"""One file a tab: only layout, no decisions."""
