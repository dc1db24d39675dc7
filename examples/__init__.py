"""The demo: a year of flights as a moving graph."""
