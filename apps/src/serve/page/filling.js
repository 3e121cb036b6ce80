// Replaced by the page.
