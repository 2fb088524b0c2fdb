"""Pages for people: what a search found, and what the demo did, as one HTML file each.

A page needs nothing but itself: pictures and style are inside, there is no script, and nothing is fetched. All text of
users and files is escaped. What is shown comes from the gateway; nothing is decided here.
"""

from relens.console.pages import Asked, Drawn, demo_page, search_page

__all__ = ["Asked", "Drawn", "demo_page", "search_page"]
