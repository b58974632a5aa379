"""The platform's API: what an event must be, what a request looks like, and what a reply says."""
