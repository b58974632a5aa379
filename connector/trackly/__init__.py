"""The platform's API: what an event must contain, what a request looks like, and what a reply means."""
