"""The page of `reki report`: one HTML file with its styles, scripts and data."""

from reki_feast.report_page.entities import page_entity
from reki_feast.report_page.page import embedded, page

__all__ = ["PAGE", "embedded", "page", "page_entity"]

#: The file's name, where nobody gives another.
PAGE = "report.html"
