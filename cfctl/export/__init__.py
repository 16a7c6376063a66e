"""Exporters: one file per format with FORMAT, MEDIA_TYPE and export(document) -> str or bytes."""
