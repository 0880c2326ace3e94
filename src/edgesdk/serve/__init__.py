"""`edgesdk serve`: a level of an artifact behind an HTTP server that speaks OpenAI's API; an extra of its own."""
