"""Scheduled program -> text."""
