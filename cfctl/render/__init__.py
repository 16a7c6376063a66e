"""Renderers: one module per kind of document, render(document, console, shown_unit)."""
