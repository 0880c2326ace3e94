"""`edgesdk report`: what artifacts reach and what their levels gave up, as one HTML page with pictures."""

from __future__ import annotations

from edgesdk.report.write import WrittenReport, write_report

__all__ = ["WrittenReport", "write_report"]
