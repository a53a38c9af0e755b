"""`bench`: what is trained, where, and what is made of it; one module a step."""
