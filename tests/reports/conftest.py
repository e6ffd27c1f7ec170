"""Makes the fixture known to the tests beside it; what it is made of stands in report_fixtures.py."""

from report_fixtures import comparison

__all__ = ["comparison"]
