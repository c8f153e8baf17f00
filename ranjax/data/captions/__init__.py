"""Captions that are made false: a medical grammar of exchangeable terms, and what a caption states."""
