"""A Django site with a chat, as the deployment page has one in mind."""
